from __future__ import annotations

import asyncio
import threading

import pytest

from safecode_guard.errors import JudgeUnavailable
from safecode_guard.judges.loops import LoopThread


async def nothing() -> None:
    pass


async def where() -> str:
    return threading.current_thread().name


async def test_threads_and_tasks_do_work_on_one_loop() -> None:
    loop = LoopThread("mine")
    assert await asyncio.to_thread(loop.run, where) == "mine"
    assert await loop.arun(where) == "mine"
    assert loop.alive
    loop.stop(nothing)
    assert not loop.alive


def test_stopping_cancels_what_runs_and_does_the_last_thing() -> None:
    loop, told = LoopThread("mine"), list[str]()
    begun = threading.Event()

    async def endless() -> None:
        try:
            begun.set()
            await asyncio.sleep(60)
        finally:
            told.append("cancelled")

    async def last() -> None:
        told.append("last")

    def wait() -> None:
        with pytest.raises(JudgeUnavailable):
            loop.run(endless)

    waiting = threading.Thread(target=wait)
    waiting.start()
    begun.wait()
    loop.stop(last)
    loop.stop(last)
    waiting.join(2)
    assert told == ["cancelled", "last"]


def test_an_error_is_raised_where_the_work_was_asked_for() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    loop = LoopThread("mine")
    with pytest.raises(ZeroDivisionError):
        loop.run(broken)
    loop.stop(nothing)


def test_it_can_be_stopped_from_within() -> None:
    loop = LoopThread("mine")
    loop._loop.call_soon_threadsafe(loop.stop, nothing)  # as a garbage collector does
    loop._thread.join(2)
    assert not loop.alive
    loop._loop.close()


@pytest.mark.parametrize("door", ["run", "arun"])
async def test_who_waits_while_it_is_stopped_is_told_and_not_cancelled(door: str) -> None:
    loop, begun = LoopThread("mine"), threading.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.sleep(60)

    waiting = asyncio.create_task(
        loop.arun(endless) if door == "arun" else asyncio.to_thread(loop.run, endless)
    )
    await asyncio.to_thread(begun.wait)
    await asyncio.to_thread(loop.stop, nothing)
    with pytest.raises(JudgeUnavailable, match="was closed"):
        await asyncio.wait_for(waiting, 5)


async def test_a_caller_that_is_cancelled_stays_cancelled() -> None:
    loop, begun = LoopThread("mine"), threading.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.sleep(60)

    waiting = asyncio.create_task(loop.arun(endless))
    await asyncio.to_thread(begun.wait)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    loop.stop(nothing)


def test_work_that_comes_while_it_stops_is_refused_and_not_forgotten() -> None:
    loop, told = LoopThread("mine"), list[Exception]()

    async def last() -> None:
        def late() -> None:
            try:
                loop.run(where)
            except JudgeUnavailable as error:
                told.append(error)

        thread = threading.Thread(target=late)
        thread.start()
        await asyncio.to_thread(thread.join, 5)
        assert not thread.is_alive()

    loop.stop(last)
    assert len(told) == 1
    with pytest.raises(JudgeUnavailable):
        loop.run(where)
    loop.stop(nothing)
