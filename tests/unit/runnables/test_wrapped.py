"""The model inside a guard: steered where its engine is in reach, otherwise only called."""

from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from safecode_guard.errors import LogitsUnavailable, PolicyError, TurnBlocked, UnknownArgument
from safecode_guard.models.protocol import Sampling
from safecode_guard.policy import Policy
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.runnables.wrapped import CalledModel, SteeredModel, wrapped
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from safecode_guard.verdict import Verdict
from tests.messages import ask
from tests.unit.runnables.guards import HELP, REFUSAL, judged_only, merged, model

WALK = AIMessage("", tool_calls=[{"name": "walk", "args": {"to": "edge"}, "id": "1"}])
JUDGE_ONLY = Policy(mode="judge_only")


class Place(BaseModel):
    """A place."""

    name: str


class WithTools(GenericFakeChatModel):
    """A foreign model that binds tools in a form of its own."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(functions=tools)


# -- which it is -----------------------------------------------------------------------------


def test_the_policys_mode_says_how_a_model_is_used():
    assert isinstance(wrapped(model(), Policy()), SteeredModel)
    assert isinstance(wrapped(model(), JUDGE_ONLY), CalledModel)
    assert isinstance(wrapped(FakeListChatModel(responses=["x"]), JUDGE_ONLY), CalledModel)
    with pytest.raises(LogitsUnavailable, match="FakeListChatModel"):
        wrapped(FakeListChatModel(responses=["x"]), Policy())


def test_a_steered_model_lends_its_engine_and_its_queue():
    inner = model()
    steered = wrapped(inner, Policy())
    assert steered.engine is inner.engine
    assert steered.admission is inner.admission
    assert steered.judges_itself


def test_only_a_model_on_an_engine_can_judge_itself():
    assert wrapped(model(), JUDGE_ONLY).judges_itself
    assert not wrapped(FakeListChatModel(responses=["x"]), JUDGE_ONLY).judges_itself


# -- what a call asks ------------------------------------------------------------------------


def test_a_steered_models_options_are_read():
    asked = wrapped(model(), Policy()).asked(["x"], {"seed": 3, "tool_choice": "none"})
    assert (asked.sampling.seed, asked.sampling.stop) == (3, ("x",))
    assert (asked.forced, asked.options) == (False, {})
    with pytest.raises(UnknownArgument):
        wrapped(model(), Policy()).asked(None, {"sede": 3})


def test_a_called_models_options_are_passed_on_as_they_are():
    inner = FakeListChatModel(responses=["x"])
    options = {"effort": "low", "safecode_trace": True, "cache_scope": "ann"}
    asked = wrapped(inner, JUDGE_ONLY).asked(["x"], options)
    assert asked.options == {"effort": "low", "stop": ["x"]}
    assert asked.sampling == Sampling()


@pytest.mark.parametrize(
    ("options", "forced"),
    [
        ({}, False),
        ({"tool_choice": "auto"}, False),
        ({"tool_choice": "any"}, True),
        ({"tool_choice": {"type": "tool", "name": "walk"}}, True),
        ({"response_format": {"type": "json_object"}}, True),
    ],
)
def test_a_form_that_a_provider_forces_is_seen(options, forced):
    inner = FakeListChatModel(responses=["x"])
    assert wrapped(inner, JUDGE_ONLY).asked(None, options).forced is forced


# -- answers ---------------------------------------------------------------------------------


def test_safe_passes_and_unsafe_blocks():
    safe = judged_only(0.1).invoke(ask())
    assert (safe.text, Verdict.from_message(safe).action) == (HELP, "pass")
    unsafe = judged_only(0.9).invoke(ask())
    assert (unsafe.text, Verdict.from_message(unsafe).action) == (Policy().refusal_text, "block")


def test_review():
    reply = judged_only(0.9, actions={"unsafe": "review"}).invoke(ask())
    assert reply.text == Policy().review_text
    with pytest.raises(TurnBlocked):
        judged_only(0.9, actions={"unsafe": "review"}, on_block="raise").invoke(ask())


def test_a_steerable_model_is_not_steered_either():
    inner = model({HELP: 0.0, REFUSAL: 0.3})
    reply = judged_only(0.1, inner).invoke(ask())
    assert reply.text == REFUSAL
    assert Verdict.from_message(reply).decoding is None


def test_it_can_judge_itself():
    reply = SafeCoDeGuard(model=model(p_unsafe=0.9), policy=JUDGE_ONLY).invoke(ask())
    assert Verdict.from_message(reply).label == "unsafe"
    assert reply.text == Policy().refusal_text


def test_the_model_is_not_asked_when_blocked():
    class Forbidden(FakeListChatModel):
        def _call(self, *args: Any, **kwargs: Any) -> str:
            raise AssertionError("asked")

    reply = judged_only(0.9, Forbidden(responses=["x"])).invoke(ask())
    assert reply.text == Policy().refusal_text


def test_output_rail():
    judge = ScriptedJudge(lambda request: 0.9 if request.stage == "output" else 0.1)
    guard = judged_only(judge, stages={"output": {"when": "always"}})
    reply = guard.invoke(ask())
    assert [v.stage for v in Verdict.all_from_message(reply)] == ["input", "output"]
    assert reply.text == Policy().refusal_text
    assert HELP not in reply.model_dump_json()
    assert HELP not in merged(list(guard.stream(ask()))).text


def test_the_output_rail_judges_a_models_calls_with_its_words():
    judge = ScriptedJudge(0.1)
    guard = judged_only(
        judge, WithTools(messages=iter([WALK])), stages={"output": {"when": "always"}}
    )
    assert guard.bind_tools([{"name": "walk"}]).invoke(ask()).tool_calls[0]["name"] == "walk"
    assert judge.requests[-1].answer == 'walk {"to":"edge"}'


# -- tools and structured output -------------------------------------------------------------


def test_tools_stay_behind_the_guard():
    inner = WithTools(messages=iter([WALK]))
    bound = judged_only(0.1, inner).bind_tools([{"name": "walk"}])
    assert bound.bound.model is inner
    assert bound.kwargs == {"functions": [{"name": "walk"}]}
    assert bound.invoke(ask()).tool_calls[0]["name"] == "walk"
    blocked = judged_only(0.9, WithTools(messages=iter([WALK]))).bind_tools([{"name": "walk"}])
    assert blocked.invoke(ask()).tool_calls == []


def test_a_bind_tools_that_hides_the_model_is_refused():
    class Hiding(FakeListChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return RunnableLambda(lambda x: x)

    with pytest.raises(PolicyError, match="bind_tools"):
        judged_only(0.1, Hiding(responses=["x"])).bind_tools([])


def test_structured_output_keeps_the_guard_in_the_chain():
    inner = ChatTransformers.from_engine(ScriptedVLM('{"name": "edge"}'), temperature=0)
    assert judged_only(0.1, inner).with_structured_output(Place).invoke(ask()) == Place(name="edge")
    with pytest.raises(TurnBlocked):
        judged_only(0.9, inner).with_structured_output(Place).invoke(ask())


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_a_forced_form_with_anything_but_safe_is_blocked(p):
    inner = ChatTransformers.from_engine(ScriptedVLM('{"name": "edge"}'), temperature=0)
    chain = judged_only(p, inner, actions={"undecided": "pass"}).with_structured_output(Place)
    with pytest.raises(TurnBlocked, match="allow_refusal"):
        chain.invoke(ask())


class Foreign(GenericFakeChatModel):
    """Forces a form by an option that only its own provider has."""

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
        bound = self.bind(format={}, ls_structured_output_format={"schema": {"title": "place"}})
        return bound | RunnableLambda(lambda message: message.text)

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        assert kwargs.keys() <= {"format", "stop"}
        return super()._generate(*args, **kwargs)


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_a_foreign_models_own_chain_is_rebuilt_around_the_guard(p):
    def chain(p):
        return judged_only(p, Foreign(messages=iter([AIMessage(HELP)]))).with_structured_output(
            Place
        )

    assert chain(0.1).invoke(ask()) == HELP
    with pytest.raises(TurnBlocked):
        chain(p).invoke(ask())
    with pytest.raises(TurnBlocked):
        list(chain(p).stream(ask()))


def test_a_chain_that_hides_its_model_is_refused():
    class Hiding(FakeListChatModel):
        def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
            return RunnableLambda(lambda m: Place(name="x"))

    with pytest.raises(PolicyError, match="hides its model"):
        judged_only(0.1, Hiding(responses=["x"])).with_structured_output(Place)
