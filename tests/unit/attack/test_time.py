"""Deadlines that have to hold, and an event loop that must not be blocked."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from PIL import Image

from safecode_guard import BaseJudge, Verdict
from safecode_guard.errors import TurnTimeout
from tests.messages import ask, text_block
from tests.unit.attack.models import Plain
from tests.unit.runnables.guards import guarded, judged_only

DOORS: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda guard: guard.invoke(ask()),
    "stream": lambda guard: list(guard.stream(ask())),
}


async def longest_gap(work: Callable[[], Awaitable[Any]]) -> float:
    """The longest time for which the loop did nothing else, garbage collection left out."""
    gaps, ended = [0.0], False
    gc.disable()  # a full collection stops every thread, for 0.2 s with all that tests have loaded

    async def tick() -> None:
        last = time.monotonic()
        while not ended:
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.02)
    try:
        await work()
    finally:
        ended = True
        gc.enable()
    await ticking
    return max(gaps)


@pytest.mark.parametrize("door", DOORS)
def test_a_called_model_that_is_late_ends_at_the_deadline(door: str) -> None:
    started = time.monotonic()
    with pytest.raises(TurnTimeout):
        DOORS[door](judged_only(0.1, Plain(delay=1.5), deadline_s=0.3))
    assert time.monotonic() - started < 1.2


@pytest.mark.parametrize("live", [False, True])
async def test_a_called_model_that_is_late_ends_at_the_deadline_on_the_loop(live: bool) -> None:
    guard = judged_only(0.1, Plain(delay=1.5), deadline_s=0.3)
    started = time.monotonic()
    answer = _streamed(guard) if live else guard.ainvoke(ask())
    with pytest.raises(TurnTimeout):
        await answer
    assert time.monotonic() - started < 1.2


def slow_sink(_: Verdict) -> None:
    time.sleep(0.3)


async def test_a_slow_sink_blocks_no_loop_where_nothing_is_answered() -> None:
    guard = guarded(0.1, sinks=[slow_sink])
    assert await longest_gap(lambda: guard.acheck(ask())) < 0.2


async def test_a_slow_sink_blocks_no_loop_where_the_turn_is_blocked() -> None:
    guard = guarded(0.9, sinks=[slow_sink], policy={"actions": {"unsafe": "block"}})
    assert await longest_gap(lambda: guard.ainvoke(ask())) < 0.2


class Lazy(Image.Image):
    """A picture whose pixels take their time."""

    def __init__(self) -> None:
        super().__init__()
        made = Image.new("RGB", (8, 8))
        self.im, self._mode, self._size = made.im, made.mode, made.size

    def load(self) -> Any:
        time.sleep(0.15)
        return super().load()


@pytest.mark.parametrize("door", ["ainvoke", "astream", "abatch"])
async def test_a_picture_that_is_slow_to_read_blocks_no_loop(door: str) -> None:
    guard = guarded(0.1)
    await guard.ainvoke(ask())  # what is made once for all turns, in threads, is made
    message = HumanMessage([{"type": "image", "image": Lazy()}, text_block("q")])

    async def work() -> None:
        if door == "ainvoke":
            await guard.ainvoke([message])
        elif door == "abatch":
            await guard.abatch([[message]])
        else:
            assert [chunk async for chunk in guard.astream([message])]

    assert await longest_gap(work) < 0.12


class Hung(BaseJudge):
    """Never answers, until it is let go."""

    id = "hung"

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def judge(self, request: Any) -> Any:
        self.let_go.wait(20)


async def test_judges_that_hang_do_not_take_all_threads() -> None:
    judge = Hung()
    config = {"kind": "custom", "id": "hung", "timeout_s": 0.05}
    guard = guarded(judge=judge, policy={"deadline_s": 1.0, "judge": config})
    try:
        for number in range(40):
            async with asyncio.timeout(2):
                await guard.ainvoke(ask(str(number)))
    finally:
        judge.let_go.set()


async def _streamed(guard: Any) -> list[Any]:
    return [chunk async for chunk in guard.astream(ask())]
