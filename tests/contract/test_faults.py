"""Fifty ways in which a judge can fail, at every stage, sync and async: none is a pass."""

from __future__ import annotations

import asyncio
import decimal
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from safecode_guard import Policy, SafeCoDeCheck
from safecode_guard.errors import JudgeError, JudgeTimeout, ModelError, PolicyError
from safecode_guard.judges.chat import ChatJudge
from safecode_guard.judges.protocol import BaseJudge
from safecode_guard.taxonomy import STAGES
from safecode_guard.testing import Delay, ScriptedJudge
from safecode_guard.verdict import Judgement
from tests.messages import ask, image_block

RAISED: list[Exception] = [
    JudgeError("down"), JudgeTimeout("late"), ModelError("broken"), PolicyError("odd"),
    KeyError("key"), ValueError("value"), TypeError("type"), RuntimeError("CUDA out of memory"),
    OSError("disk"), ConnectionError("refused"), TimeoutError("slow"), RecursionError("deep"),
    MemoryError("none"), StopIteration("over"), StopAsyncIteration("over"), AssertionError("no"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ZeroDivisionError("0"), EOFError("end"),
    NotImplementedError("later"), LookupError("lost"), BufferError("full"), Exception("bare"),
]  # fmt: skip


def forged(**fields: Any) -> Judgement:
    """A judgement that skipped pydantic."""
    known = {"judge_id": "j", "prompt_version": "1", "label": None, "failed": None}
    known |= {"p_unsafe": None, "parse_status": "logits", "categories": (), "members": ()}
    return Judgement.model_construct(**(known | {"label_mass": None} | fields))


ANSWERED: list[Any] = [
    forged(),
    *(forged(p_unsafe=p) for p in (
        -0.3, 1.7, math.nan, math.inf, -math.inf, "0.1", b"0.1", True, [0.1], {}, object(), 1j,
        np.float64("nan"), np.array([0.1, 0.2]), torch.tensor(float("nan")),
        torch.tensor([0.1, 0.2]), decimal.Decimal("NaN"),
    )),
    *(forged(label=label) for label in ("SAFE", "safe ", "harmless", 0, True, ["safe"], "")),
    forged(label="safe", p_unsafe=0.9),
    forged(label="unsafe", p_unsafe=0.01),
    forged(label="safe", parse_status="malformed"),
    forged(p_unsafe=0.1, parse_status="malformed"),
    forged(p_unsafe=0.1, failed="it broke"),
    None, 0.1, "safe", {"label": "safe"}, True, (0.1,), object(),
]  # fmt: skip

WRITTEN = [
    "", "safe.\nThis could kill someone.", "not unsafe", "safe or unsafe", "unsafe? safe!",
    '{"label": "safe", "p_unsafe": 0.9}', '{"label": "safe"', "<html>503</html>", "Safe-ish",
    '{"label": "safe", "label": "unsafe"}', '{"label": "SAFE", "p_unsafe": NaN}', "\x00safe\x00x",
    "I cannot judge this.", "safe " * 9000, '["safe"]', "sаfe",
]  # fmt: skip


class Answering(BaseJudge):
    """Gives back whatever it is told to."""

    id = "answering"

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def judge(self, request: Any) -> Any:
        return self._answer

    async def ajudge(self, request: Any) -> Any:
        return self._answer


def raising(error: Exception) -> Callable[[], Any]:
    return lambda: ScriptedJudge(error)


def answering(answer: Any) -> Callable[[], Any]:
    return lambda: Answering(answer)


def writing(text: str) -> Callable[[], Any]:
    return lambda: ChatJudge(GenericFakeChatModel(messages=iter([AIMessage(text)])), id="chat")


FAULTS = [
    *map(raising, RAISED),
    *map(answering, ANSWERED),
    *map(writing, WRITTEN),
    lambda: ScriptedJudge(Delay(5.0, 0.1)),
]


def test_there_are_fifty_faults_or_more() -> None:
    assert len(FAULTS) >= 50


def conversation(stage: str) -> list[Any]:
    call = {"name": "press", "args": {"button": "red"}, "id": "c1"}
    if stage == "tool_result":
        result = ToolMessage([image_block("blue")], tool_call_id="c1")
        return [*ask(), AIMessage("", tool_calls=[call]), result]
    return ask() if stage != "output" else [*ask(), AIMessage("Run along the edge.")]


def arguments(stage: str) -> dict[str, Any]:
    call = {"name": "press", "args": {"button": "red"}, "id": "c1"}
    return {"stage": stage} | ({"tool_call": call} if stage.startswith("tool") else {})


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_passes(fault: Callable[[], Any], stage: str, asynchronous: bool) -> None:
    policy = Policy.load({"judge": {"kind": "chat", "timeout_s": 0.1}})
    check = SafeCoDeCheck(judge=fault(), policy=policy)
    if asynchronous:
        verdict = asyncio.run(check.acheck(conversation(stage), **arguments(stage)))
    else:
        verdict = check.check(conversation(stage), **arguments(stage))
    assert verdict.stage == stage
    assert verdict.action in ("review", "block")
    assert verdict.label != "safe"
    assert (verdict.label is None) is verdict.degraded
    assert verdict.p_unsafe is None or verdict.p_unsafe > 0.5


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("action", ["review", "block", "guide"])
def test_the_policys_own_action_follows(stage: str, action: str) -> None:
    policy = Policy.load({"judge": {"kind": "chat"}, "actions": {"judge_error": action}})
    check = SafeCoDeCheck(judge=ScriptedJudge(JudgeError("down")), policy=policy)
    verdict = check.check(conversation(stage), **arguments(stage))
    expected = action if action != "guide" or stage == "input" else "block"
    assert verdict.action == expected


def test_a_call_that_cannot_be_judged_is_an_error_of_the_tree() -> None:
    from safecode_guard import UnreadableCall

    deep: Any = {}
    deep["a"] = deep
    check = SafeCoDeCheck(judge=ScriptedJudge(0.1))
    for call in (
        {"args": {}},
        {"name": ""},
        {"name": "x", "args": [1]},
        {"name": "x", "args": deep},
    ):
        with pytest.raises(UnreadableCall):
            check.check([HumanMessage("Hello!")], tool_call=call)
