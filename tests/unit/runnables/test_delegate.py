"""Guarding models that cannot be steered."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from safecode_guard.errors import PolicyError, TurnBlocked
from safecode_guard.policy import Policy
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.testing import EventRecorder, ScriptedJudge, ScriptedVLM
from safecode_guard.verdict import Verdict
from tests.messages import ask

HELP = "Run along the edge."


def guard(p_unsafe: Any, inner: Any = None, **policy: Any) -> SafeCoDeGuard:
    inner = inner or FakeListChatModel(responses=[HELP])
    judge = p_unsafe if isinstance(p_unsafe, ScriptedJudge) else ScriptedJudge(p_unsafe)
    return SafeCoDeGuard(
        model=inner, judge=judge, policy=Policy.load({"mode": "judge_only", **policy})
    )


def merged(chunks):
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


def test_safe_passes_and_unsafe_blocks():
    safe = guard(0.1).invoke(ask())
    assert (safe.text, Verdict.from_message(safe).action) == (HELP, "pass")
    unsafe = guard(0.9).invoke(ask())
    assert (unsafe.text, Verdict.from_message(unsafe).action) == (Policy().refusal_text, "block")


def test_review():
    reply = guard(0.9, actions={"unsafe": "review"}).invoke(ask())
    assert reply.text == Policy().review_text
    with pytest.raises(TurnBlocked):
        guard(0.9, actions={"unsafe": "review"}, on_block="raise").invoke(ask())


async def test_async_paths():
    assert (await guard(0.1).ainvoke(ask())).text == HELP
    assert (await guard(0.9).ainvoke(ask())).text == Policy().refusal_text
    chunks = [chunk async for chunk in guard(0.1).astream(ask())]
    assert merged(chunks).text == HELP
    assert Verdict.from_message(chunks[0]).action == "pass"
    assert not chunks[0].text


@pytest.mark.parametrize("p", [0.1, 0.9])
def test_each_verdict_is_told_once(p):
    for call in ("invoke", "stream"):
        recorder, judge = EventRecorder(), ScriptedJudge(p)
        result = getattr(guard(judge), call)(ask(), {"callbacks": [recorder]})
        message = merged(list(result)) if call == "stream" else result
        assert len(recorder.verdicts) == len(judge.requests) == 1
        assert [v.id for v in Verdict.all_from_message(message)] == [recorder.verdicts[0].id]


def test_the_model_is_not_asked_when_blocked():
    class Forbidden(FakeListChatModel):
        def _call(self, *args: Any, **kwargs: Any) -> str:
            raise AssertionError("asked")

    reply = guard(0.9, Forbidden(responses=["x"])).invoke(ask())
    assert reply.text == Policy().refusal_text


def test_output_rail():
    judge = ScriptedJudge(lambda request: 0.9 if request.stage == "output" else 0.1)
    reply = guard(judge, output_rail={"when": "always"}).invoke(ask())
    assert [v.stage for v in Verdict.all_from_message(reply)] == ["input", "output"]
    assert reply.text == Policy().refusal_text
    chunks = list(guard(judge, output_rail={"when": "always"}).stream(ask()))
    assert HELP not in merged(chunks).text


def test_tools_stay_behind_the_guard():
    class WithTools(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self.bind(tools=tools)

    call = AIMessage("", tool_calls=[{"name": "walk", "args": {"to": "edge"}, "id": "1"}])
    inner = WithTools(messages=iter([call]))
    bound = guard(0.1, inner).bind_tools([{"name": "walk"}])
    assert bound.bound.model is inner
    assert bound.invoke(ask()).tool_calls[0]["name"] == "walk"
    blocked = guard(0.9, WithTools(messages=iter([call]))).bind_tools([{"name": "walk"}])
    assert blocked.invoke(ask()).tool_calls == []


def test_a_bind_tools_that_hides_the_model_is_refused():
    class Hiding(FakeListChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return RunnableLambda(lambda x: x)

    with pytest.raises(PolicyError, match="bind_tools"):
        guard(0.1, Hiding(responses=["x"])).bind_tools([])


class Place(BaseModel):
    """A place."""

    name: str


def test_structured_output_keeps_the_guard_in_the_chain():
    inner = ChatTransformers.from_engine(ScriptedVLM('{"name": "edge"}'), temperature=0)
    assert guard(0.1, inner).with_structured_output(Place).invoke(ask()) == Place(name="edge")
    with pytest.raises(TurnBlocked):
        guard(0.9, inner).with_structured_output(Place).invoke(ask())


def test_a_foreign_models_own_chain_is_rebuilt_around_the_guard():
    class Foreign(GenericFakeChatModel):
        def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
            return self.bind(response_format={"schema": {}}) | RunnableLambda(lambda m: m.text)

    safe = guard(0.1, Foreign(messages=iter([AIMessage(HELP)]))).with_structured_output(Place)
    assert safe.invoke(ask()) == HELP
    blocked = guard(0.9, Foreign(messages=iter([AIMessage(HELP)]))).with_structured_output(Place)
    with pytest.raises(TurnBlocked):
        blocked.invoke(ask())
