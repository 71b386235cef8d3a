from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest

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
        with pytest.raises(CancelledError):
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
