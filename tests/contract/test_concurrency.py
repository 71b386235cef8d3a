"""Many callers at once: none hangs, none holds threads while it waits, none is mixed up."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from safecode_guard import ChatTransformers, Overloaded, SafeCoDeGuard, Verdict
from safecode_guard.testing import Delay, ScriptedJudge, ScriptedVLM
from tests.messages import ask


def by_request(scene: Any) -> str:
    return f"Answer to {scene.question}"


def guard_of(*, judge: Any = None, active: int = 4, waiting: int = 64, **options: Any):
    model = ChatTransformers.from_engine(
        ScriptedVLM(by_request, **options), temperature=0, max_active=active, max_waiting=waiting
    )
    return SafeCoDeGuard(model=model, judge=judge)


async def streamed(guard: SafeCoDeGuard, number: int) -> tuple[str, Verdict]:
    whole: Any = None
    async for chunk in guard.astream(ask(f"question {number}")):
        whole = chunk if whole is None else whole + chunk
    return whole.text, Verdict.from_message(whole)


@pytest.mark.parametrize("judge", [None, ScriptedJudge(0.1), ScriptedJudge(Delay(0.05, 0.1))])
async def test_64_streams_at_once_on_the_default_executor_are_all_served(judge: Any) -> None:
    guard = guard_of(judge=judge)
    ticks: list[float] = []

    async def others() -> None:
        while True:  # other users of the loop and of its default executor keep running
            ticks.append(await asyncio.to_thread(time.monotonic))
            await asyncio.sleep(0.01)

    watcher = asyncio.create_task(others())
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(streamed(guard, i) for i in range(64)))
    watcher.cancel()
    assert [text for text, _ in answers] == [f"Answer to question {i}" for i in range(64)]
    assert len({verdict.id for _, verdict in answers}) == 64
    gaps = [b - a for a, b in itertools.pairwise(ticks)]
    assert ticks
    assert max(gaps, default=0) < 5


async def test_callers_beyond_the_queue_are_refused_in_async_too() -> None:
    guard = guard_of(judge=ScriptedJudge(0.1), active=4, waiting=8)
    inputs = (ask(f"question {i}") for i in range(200))
    async with asyncio.timeout(60):
        found = await asyncio.gather(*map(guard.ainvoke, inputs), return_exceptions=True)
    refused = [one for one in found if isinstance(one, Exception)]
    assert refused
    assert {type(one) for one in refused} == {Overloaded}
    served = [one for one in found if not isinstance(one, Exception)]
    assert len(served) >= 12
    assert (await guard.ainvoke(ask("after"))).text == "Answer to after"


async def test_cancelled_callers_give_their_places_back() -> None:
    guard = guard_of(judge=ScriptedJudge(0.1), active=2, waiting=64)
    tasks = [asyncio.create_task(guard.ainvoke(ask(f"question {i}"))) for i in range(24)]
    await asyncio.sleep(0.02)
    for task in tasks[::2]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(not isinstance(one, Exception) for one in found[1::2])
    async with asyncio.timeout(20):
        again = await asyncio.gather(*(streamed(guard, i) for i in range(8)))
    assert len(again) == 8


async def test_a_stream_that_is_left_gives_its_place_back() -> None:
    guard = guard_of(judge=ScriptedJudge(0.1), active=1, waiting=4)
    for i in range(6):
        async for chunk in guard.astream(ask(f"question {i}")):
            if chunk.text:
                break
    async with asyncio.timeout(10):
        assert (await streamed(guard, 8))[0] == "Answer to question 8"
    for i in range(6):
        stream = guard.stream(ask(f"question {i}"))
        next(stream)
        stream.close()
    async with asyncio.timeout(10):
        assert (await streamed(guard, 9))[0] == "Answer to question 9"


def test_threads_and_tasks_share_one_guard() -> None:
    guard = guard_of()
    results: list[str] = []

    def call(number: int) -> None:
        results.append(guard.invoke(ask(f"question {number}")).text)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()

    async def tasks() -> list[tuple[str, Verdict]]:
        return await asyncio.gather(*(streamed(guard, i) for i in range(16)))

    answers = asyncio.run(tasks())
    for thread in threads:
        thread.join(30)
    expected = sorted(f"Answer to question {i}" for i in range(16))
    assert sorted(results) == sorted(text for text, _ in answers) == expected


def test_no_thread_is_left_when_a_guard_is_gone() -> None:
    def used() -> None:
        guard = guard_of(judge=ScriptedJudge(0.1))

        async def calls() -> None:
            await asyncio.gather(*(guard.ainvoke([HumanMessage("Hello!")]) for _ in range(20)))

        asyncio.run(calls())

    before = threading.active_count()
    for _ in range(3):
        used()
    gc.collect()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


async def test_a_sync_call_inside_a_running_loop_works() -> None:
    guard = guard_of()
    assert guard.invoke(ask("inside")).text == "Answer to inside"
    chunks = list(guard.stream(ask("inside")))
    assert "".join(chunk.text for chunk in chunks) == "Answer to inside"
