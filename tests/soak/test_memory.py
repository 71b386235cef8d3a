"""Ten thousand turns leave nothing behind: no memory, no thread, no descriptor."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from safecode_guard import ChatTransformers, Policy, SafeCoDeGuard
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from tests.messages import ask

GROWTH = 1.02
TURNS = int(os.environ.get("SOAK_TURNS", "10000"))


def resident() -> int:
    """Bytes of memory that the process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def steady(turn: Callable[[int], Any], count: int) -> None:
    """Run turns; after a tenth of them, nothing grows any more."""
    for i in range(count // 10):
        turn(i)
    memory, threads, files = resident(), threading.active_count(), descriptors()
    for i in range(count // 10, count):
        turn(i)
    assert resident() <= memory * GROWTH
    assert threading.active_count() <= threads
    assert descriptors() <= files


def fill(workers: ThreadPoolExecutor) -> None:
    """Start all threads of a pool, which begins one whenever no other happens to be idle."""
    count = workers._max_workers
    together = threading.Barrier(count)
    list(workers.map(lambda _: together.wait(), range(count)))


def scripted(**policy: Any) -> SafeCoDeGuard:
    model = ChatTransformers.from_engine(ScriptedVLM("Yes."), temperature=0)
    small = {"images": {"cache_bytes": 1_000_000}, "judge": {"kind": "chat", "cache_size": 64}}
    return SafeCoDeGuard(model=model, judge=ScriptedJudge(0.1), policy=Policy.load(small | policy))


def test_turns() -> None:
    guard = scripted()
    judge, engine = guard.judge, guard.model.engine  # type: ignore[attr-defined]

    def turn(i: int) -> None:
        guard.invoke(ask(f"question {i}"))
        judge.requests.clear()
        engine.calls.clear()

    steady(turn, TURNS)


def test_streams_on_an_event_loop() -> None:
    guard = scripted(stages={"output": {"when": "always"}})
    judge, engine = guard.judge, guard.model.engine  # type: ignore[attr-defined]

    async def left_early(i: int) -> None:
        async for chunk in guard.astream(ask(f"question {i}")):
            if i % 3 == 0 and chunk.text:
                break

    fill(guard._workers)
    with asyncio.Runner() as runner:

        def turn(i: int) -> None:
            runner.run(left_early(i))
            judge.requests.clear()
            engine.calls.clear()

        steady(turn, TURNS // 2)


@pytest.mark.parametrize("mode", ["guard", "judge_only"])
def test_the_embedded_model(mode: str) -> None:
    small = {"judge": {"cache_size": 16}, "prefix_cache_bytes": 5_000_000}
    model = ChatTransformers.tiny(prefix_cache_bytes=5_000_000)  # its own, where it is only called
    guard = SafeCoDeGuard(model=model, policy=Policy.load({"mode": mode, **small}))
    steady(lambda i: guard.invoke(ask(f"How do I run faster? {i}")), max(20, TURNS // 20))
