"""What guarding costs an agent of screenshots: ``python -m safecode_guard_langchain.bench``.

The judge is scripted and answers at once without looking, so what is timed is the guard alone:
reading pictures, making scenes, asking, remembering. Each step takes a new screenshot; making sure
that it is whole is part of the step. A judge that looks decodes it, which is told apart. Times are
CPU time of one process in which the guarded and the plain agent take turns.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from langchain.agents import create_agent
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from PIL import Image

from safecode_guard import SafeCoDeCheck
from safecode_guard.policy import ImagePolicy
from safecode_guard.testing import ScriptedJudge
from safecode_guard.turns.decoding import decode_file
from safecode_guard.turns.intact import size_of_intact
from safecode_guard_langchain import SafeCoDeMiddleware
from safecode_guard_langchain.testing import ScriptedChatModel, calls

SIZE: Final = (1920, 1080)
WINDOW: Final = 20
"""Steps at the end that are set beside as many at the beginning."""
KINDS: Final = 16
"""Different screenshots; each is made distinct by its step's number."""


def screenshot(number: int) -> str:
    """Return a screenshot of a drawn desktop as base64 of a PNG; each number gives another."""
    rng = np.random.default_rng(number % KINDS)
    tiles = Image.fromarray(rng.integers(0, 255, (9, 16, 3), dtype=np.uint8))
    image = tiles.resize(SIZE, Image.Resampling.NEAREST)
    image.putpixel((number % SIZE[0], number // SIZE[0]), (number % 256, number // 256, 7))
    stored = io.BytesIO()
    image.save(stored, "PNG", compress_level=1)
    return base64.b64encode(stored.getvalue()).decode()


def steps_of(shots: Sequence[str], judge: ScriptedJudge | None) -> Iterator[float]:
    """Run an agent that takes screenshots, and yield the CPU time of each step in milliseconds.

    A step goes from one answer of the model to the next; what the caller does meanwhile does not
    count. Without a judge the agent is not guarded.
    """

    @tool
    def look(step: int) -> list[dict[str, Any]]:
        """Take a screenshot."""
        return [{"type": "image", "base64": shots[step], "mime_type": "image/png"}]

    def reply(messages: Sequence[BaseMessage]) -> Any:
        step = sum(message.type == "ai" for message in messages)
        if step == len(shots):
            return "Done."
        return calls(("look", {"step": step}), first_id=f"step-{step}")

    middleware = [] if judge is None else [SafeCoDeMiddleware(judge)]
    agent = create_agent(ScriptedChatModel(replies=reply), [look], middleware=middleware)
    asked: Any = {"messages": [HumanMessage("Do it.")]}
    limit: RunnableConfig = {"recursion_limit": 20 * len(shots)}
    began = time.process_time()
    for update in agent.stream(asked, limit, stream_mode="updates"):
        if "model" in update:
            yield 1000 * (time.process_time() - began)
            began = time.process_time()


class Pair:
    """A plain and a guarded agent that take turns, step by step.

    Whatever else the machine does, it does to both; what is told is their difference.
    """

    def __init__(self, shots: Sequence[str]) -> None:
        self._judge = ScriptedJudge(0.1)
        self._steps = zip(steps_of(shots, None), steps_of(shots, self._judge), strict=True)

    def step(self) -> tuple[float, float]:
        """Take one step each; return the plain one's milliseconds, and how many more it takes."""
        plain, guarded = next(self._steps)
        return plain, guarded - plain

    @property
    def judged(self) -> int:
        """How many screenshots the judge has been shown."""
        requests = self._judge.requests
        return len({image.sha256 for request in requests for image in request.scene.images})


@dataclass(frozen=True)
class Times:
    """Milliseconds of CPU time."""

    plain: list[float]
    """Of each step of the plain agent."""
    extra: list[float]
    """How much more the guarded one took."""
    late: list[float]
    """The same of the last steps ..."""
    early: list[float]
    """... and of another pair's first, which were taken in turn with them."""


def step_times(steps: int) -> Times:
    """Time the steps of two agents.

    The last are set beside the first of a second pair that runs at the same time: minutes later
    the machine may be twice as fast or slow.
    """
    shots = [screenshot(number) for number in range(steps)]
    pair, other = Pair(shots), Pair(shots)
    taken = [pair.step() for _ in range(steps - WINDOW)]
    for _ in range(2):  # the first answer is no step, and the first step makes what is made once
        other.step()
    both = [(pair.step(), other.step()) for _ in range(WINDOW)]
    assert pair.judged >= steps - 1, "not every screenshot was judged"
    late, early = ([step[1] for step in side] for side in zip(*both, strict=True))
    plain, extra = ([step[side] for step in taken[1:]] for side in (0, 1))
    return Times(plain, extra, late, early)


def picture_ms(of: Callable[[bytes, ImagePolicy], object], rounds: int = 20) -> float:
    """Return the CPU time of looking through or decoding one screenshot, in milliseconds."""
    data, policy = base64.b64decode(screenshot(3)), ImagePolicy()
    times = []
    for _ in range(rounds):
        began = time.process_time()
        assert of(data, policy)
        times.append(1000 * (time.process_time() - began))
    return statistics.median(times)


def cached_ms(rounds: int = 200) -> float:
    """Return the CPU time of a check of an unchanged scene and call, in milliseconds."""
    check = SafeCoDeCheck(judge=ScriptedJudge(0.1))
    block = {"type": "image", "base64": screenshot(3), "mime_type": "image/png"}
    messages = [HumanMessage([block, {"type": "text", "text": "Go on."}])]
    call = {"name": "click", "args": {"x": 3, "y": 4}, "id": "1"}
    check.check(messages, tool_call=call)
    times = []
    for _ in range(rounds):
        began = time.process_time()
        verdict = check.check(messages, tool_call=call)
        times.append(1000 * (time.process_time() - began))
        assert verdict.judge is not None
        assert verdict.judge.cached
    return statistics.median(times)


def measure(steps: int) -> dict[str, float]:
    """Return all figures, times in milliseconds of CPU time."""
    times = step_times(steps)
    return {
        "steps": float(steps),
        "plain_step_ms": statistics.median(times.plain),
        "guard_ms": statistics.median(times.extra),
        "of_it_whole_ms": picture_ms(size_of_intact),
        "decoding_ms": picture_ms(decode_file),
        "late_over_early": statistics.median(times.late) / statistics.median(times.early),
        "cached_check_ms": cached_ms(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    parser = argparse.ArgumentParser(description="What guarding costs an agent of screenshots.")
    parser.add_argument("--steps", type=int, default=500, help="screenshots (500)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    found = measure(options.steps)
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    for name, value in found.items():
        sys.stdout.write(f"{name:<26}{value:10.2f}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
