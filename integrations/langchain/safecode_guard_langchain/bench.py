"""What guarding costs an agent of screenshots: ``python -m safecode_guard_langchain.bench``.

The judge is scripted and answers at once, so what is timed is the guard alone: reading pictures,
making scenes, asking, remembering. Each step takes a new screenshot; decoding it once is part of
the step and told apart. Times are CPU time of one process in which the guarded and the plain agent
take turns.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from langchain.agents import create_agent
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from PIL import Image

from safecode_guard import SafeCoDeCheck
from safecode_guard.testing import ScriptedJudge
from safecode_guard_langchain import SafeCoDeMiddleware
from safecode_guard_langchain.testing import ScriptedChatModel, calls

SIZE: Final = (1920, 1080)
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


def step_times(steps: int) -> tuple[list[float], list[float]]:
    """Return the times of the steps of a plain and of a guarded agent, in milliseconds [steps].

    The two take turns, step by step: whatever else the machine does, it does to both.
    """
    shots, judge = [screenshot(number) for number in range(steps)], ScriptedJudge(0.1)
    both = list(zip(steps_of(shots, None), steps_of(shots, judge), strict=True))
    seen = {image.sha256 for request in judge.requests for image in request.scene.images}
    assert len(seen) == steps, "not every screenshot was judged"
    plain, guarded = zip(*both[1:], strict=True)  # the first answer is no step
    return list(plain), list(guarded)


def decoding_ms(rounds: int = 20) -> float:
    """Return the CPU time of decoding one screenshot with Pillow, in milliseconds."""
    data = base64.b64decode(screenshot(3))
    times = []
    for _ in range(rounds):
        began = time.process_time()
        Image.open(io.BytesIO(data)).convert("RGB").load()
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
    plain, guarded = step_times(steps)
    extra = [with_guard - without for with_guard, without in zip(guarded, plain, strict=True)]
    early, late = extra[1:20], extra[-20:]
    decoding = decoding_ms()
    return {
        "steps": float(steps),
        "plain_step_ms": statistics.median(plain),
        "guard_ms": statistics.median(extra),
        "guard_beyond_decoding_ms": statistics.median(extra) - decoding,
        "decoding_ms": decoding,
        "late_over_early": statistics.median(late) / statistics.median(early),
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
