"""Tools and structured output, plain and guarded, by real grammars over a scripted model."""

from __future__ import annotations

from typing import TypedDict

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from safecode_guard.errors import ConstraintError, TurnBlocked
from safecode_guard.policy import Policy
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.runnables.structured import Refusal
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.testing import ScriptedVLM
from safecode_guard.verdict import Verdict
from tests.messages import ask
from tests.unit.runnables.guards import guarded, merged


class Place(BaseModel):
    """A place."""

    name: str
    steps: int


class PlaceDict(TypedDict):
    """A place."""

    name: str
    steps: int


@tool
def walk_to(target: str) -> str:
    """Walk to a target."""
    return target


@tool
def stop() -> str:
    """Stop at once."""
    return "stopped"


PLACE = '{"name": "edge", "steps": 3}'
CALL = '{"name": "walk_to", "arguments": {"target": "edge"}}'
REFUSED = '{"refusal": "It is a cliff."}'


def chat(replies, **options) -> ChatTransformers:
    return ChatTransformers.from_engine(ScriptedVLM(replies), temperature=0, **options)


def guard(p_unsafe: float, replies, **policy) -> SafeCoDeGuard:
    return guarded(p_unsafe, model=chat(replies), policy=policy)


@pytest.mark.parametrize("make", [chat, lambda r: guard(0.1, r)], ids=["plain", "guarded"])
@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (Place, Place(name="edge", steps=3)),
        (PlaceDict, {"name": "edge", "steps": 3}),
        (Place.model_json_schema(), {"name": "edge", "steps": 3}),
    ],
)
def test_structured_output(make, schema, expected):
    assert make(PLACE).with_structured_output(schema).invoke(ask()) == expected


def test_the_grammar_holds_a_model_that_wants_something_else():
    place = chat("I would rather chat.", max_tokens=60).with_structured_output(Place).invoke(ask())
    assert isinstance(place, Place)


def test_json_comes_out_whole_however_short_the_budget():
    talk = '{"name": "' + "on and on " * 100
    place = chat(talk, max_tokens=60).with_structured_output(Place).invoke(ask())
    assert place.name.startswith("on and on")


def test_include_raw_carries_the_verdict():
    out = guard(0.1, PLACE).with_structured_output(Place, include_raw=True).invoke(ask())
    assert out["parsed"] == Place(name="edge", steps=3)
    assert Verdict.from_message(out["raw"]).action == "pass"


def test_function_calling_method():
    call = '{"name": "Place", "arguments": ' + PLACE + "}"
    chain = guard(0.1, call).with_structured_output(Place, method="function_calling")
    assert chain.invoke(ask()) == Place(name="edge", steps=3)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize(("p", "label"), [(0.95, "unsafe"), (0.5, "undecided")])
def test_a_forced_schema_blocks_every_turn_that_is_not_safe(method, p, label):
    chain = guard(p, PLACE).with_structured_output(Place, method=method)
    with pytest.raises(TurnBlocked, match="allow_refusal") as caught:
        chain.invoke(ask())
    assert caught.value.verdict.label == label
    with pytest.raises(TurnBlocked):
        list(chain.stream(ask()))


def test_a_refusal_branch_lets_the_model_refuse():
    chain = guard(0.95, REFUSED).with_structured_output(Place, allow_refusal=True)
    assert chain.invoke(ask()) == Refusal(refusal="It is a cliff.")
    safe = guard(0.05, PLACE).with_structured_output(Place, allow_refusal=True)
    assert safe.invoke(ask()) == Place(name="edge", steps=3)


def test_an_unsafe_turn_takes_the_refusal_branch_even_if_the_model_would_not():
    chain = guard(0.95, PLACE).with_structured_output(Place, allow_refusal=True)
    assert isinstance(chain.invoke(ask()), Refusal)


@pytest.mark.parametrize("choice", ["any", "walk_to", {"function": {"name": "walk_to"}}, True])
def test_forced_tools(choice):
    reply = guard(0.1, CALL).bind_tools([walk_to, stop], tool_choice=choice).invoke(ask())
    (call,) = reply.tool_calls
    assert (call["name"], call["args"]) == ("walk_to", {"target": "edge"})
    assert call["id"]
    assert reply.response_metadata["finish_reason"] == "tool_calls"


def test_an_unsafe_turn_blocks_a_forced_tool():
    with pytest.raises(TurnBlocked):
        guard(0.95, CALL).bind_tools([walk_to], tool_choice="any").invoke(ask())


def test_a_free_tool_call_is_read_out_of_the_text():
    reply = (
        guard(0.1, f"Walking. <tool_call>{CALL}</tool_call>").bind_tools([walk_to]).invoke(ask())
    )
    assert reply.text.strip() == "Walking."
    assert [call["name"] for call in reply.tool_calls] == ["walk_to"]


def test_a_broken_tool_call_is_kept_as_invalid():
    reply = chat('<tool_call>{"name": "walk_to", </tool_call>').bind_tools([walk_to]).invoke(ask())
    assert reply.tool_calls == []
    assert '"walk_to"' in reply.invalid_tool_calls[0]["args"]


def test_streamed_calls_come_whole_and_leave_no_trace_in_the_text():
    bound = guard(0.1, f"Walking. <tool_call>{CALL}</tool_call>").bind_tools([walk_to])
    chunks = list(bound.stream(ask()))
    whole = merged(chunks)
    assert "tool_call" not in "".join(chunk.text for chunk in chunks)
    assert whole.text.strip() == "Walking."
    assert whole.tool_calls[0]["args"] == {"target": "edge"}


def test_text_that_only_looks_like_a_call_is_shown():
    bound = chat("a < b, <tool").bind_tools([walk_to])
    assert "".join(chunk.text for chunk in bound.stream(ask())) == "a < b, <tool"
    assert bound.invoke(ask()).text == "a < b, <tool"


def test_tools_none_offers_none():
    reply = chat(f"<tool_call>{CALL}</tool_call>").bind_tools([walk_to], tool_choice="none")
    assert reply.invoke(ask()).tool_calls == []


def test_an_unbound_choice_is_refused():
    with pytest.raises(ConstraintError, match="fly"):
        chat(CALL).bind_tools([walk_to], tool_choice="fly").invoke(ask())


def test_a_blocked_free_tool_turn_answers_with_text_and_no_call():
    policy = {"actions": {"unsafe": "block"}}
    reply = (
        guard(0.95, f"<tool_call>{CALL}</tool_call>", **policy).bind_tools([walk_to]).invoke(ask())
    )
    assert isinstance(reply, AIMessage)
    assert reply.tool_calls == []
    assert reply.text == Policy().refusal_text
