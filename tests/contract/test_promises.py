"""What a guard promises, through every door, whether the model behind is steered or only called."""

from __future__ import annotations

import time
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from pydantic import BaseModel

from safecode_guard import ChatTransformers, Policy, SafeCoDeGuard, TurnBlocked, Verdict
from safecode_guard.errors import JudgeError
from safecode_guard.testing import Delay, ScriptedJudge, ScriptedVLM
from safecode_guard.verdict import Judgement
from tests.contract.doors import DOORS, Door, Outcome
from tests.messages import ask

SECRET = "SECRET words of the model."
REFUSAL = Policy().refusal_text
REVIEW = Policy().review_text
BROKEN: Any = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}
MODES = ["guard", "judge_only"]


class Called(GenericFakeChatModel):
    """A chat model that says the same for ever, word by word, and keeps what it was given."""

    messages: Any = None
    given: list[Any] = []

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.given.append(messages)
        self.messages = iter([AIMessage(SECRET)])
        return super()._generate(messages, stop, run_manager, **kwargs)


def guard_of(mode: str, judge: Any, **policy: Any) -> SafeCoDeGuard:
    model: Any = Called(messages=iter([]), given=[])
    if mode == "guard":
        model = ChatTransformers.from_engine(ScriptedVLM(SECRET), temperature=0)
    return SafeCoDeGuard(model=model, judge=judge, policy=Policy.load({"mode": mode, **policy}))


def asked_of_the_model(guard: SafeCoDeGuard) -> int:
    model: Any = guard.model
    if isinstance(model, Called):
        return len(model.given)
    return sum(kind == "prefill" for kind, _, _ in model.engine.calls)


def withheld(outcome: Outcome) -> None:
    """Nothing of the model's answer is anywhere."""
    assert "SECRET" not in outcome.everything
    assert "safecode_trace" not in outcome.everything
    usage = getattr(outcome.message, "usage_metadata", None)
    assert not usage or usage["output_tokens"] == 0


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Door:
    return DOORS[request.param]


both = pytest.mark.parametrize("mode", MODES)


@both
def test_a_safe_turn_is_answered_with_one_verdict_that_is_told_once(door: Door, mode: str) -> None:
    outcome = door(guard_of(mode, ScriptedJudge(0.1)), ask())
    assert outcome.text == SECRET
    (verdict,) = outcome.verdicts
    assert (verdict.label, verdict.stage) == ("safe", "input")
    assert verdict.action == ("guide" if mode == "guard" else "pass")
    assert [told.id for told in outcome.ear.verdicts] == [verdict.id]
    assert verdict.run_id in outcome.ear.run_ids


@both
def test_text_alone_passes_unjudged(door: Door, mode: str) -> None:
    judge = ScriptedJudge(0.9)
    outcome = door(guard_of(mode, judge), [HumanMessage("Hello!")])
    assert (outcome.text, outcome.verdicts, judge.requests) == (SECRET, (), [])


@both
@pytest.mark.parametrize("action", ["block", "review"])
def test_a_stopped_turn_never_reaches_the_model(door: Door, mode: str, action: str) -> None:
    guard = guard_of(mode, ScriptedJudge(0.9), actions={"unsafe": action})
    outcome = door(guard, ask())
    assert outcome.text == (REFUSAL if action == "block" else REVIEW)
    assert [v.action for v in outcome.verdicts] == [action]
    assert outcome.message.response_metadata["finish_reason"] == "content_filter"
    assert asked_of_the_model(guard) == 0
    withheld(outcome)


@both
def test_a_stopped_turn_can_raise(door: Door, mode: str) -> None:
    policy = {"actions": {"unsafe": "block"}, "on_block": "raise"}
    outcome = door(guard_of(mode, ScriptedJudge(0.9), **policy), ask())
    assert isinstance(outcome.error, TurnBlocked)
    assert outcome.error.verdict.action == "block"
    withheld(outcome)


@both
def test_media_that_cannot_be_judged_never_pass(door: Door, mode: str) -> None:
    guard = guard_of(mode, ScriptedJudge(0.1))
    outcome = door(guard, [HumanMessage([BROKEN])])
    assert outcome.text == REFUSAL
    (verdict,) = outcome.verdicts
    assert (verdict.label, verdict.degraded, len(verdict.media_skipped)) == (None, True, 1)
    assert asked_of_the_model(guard) == 0


FAULTS = {
    "error": JudgeError("down"),
    "foreign": KeyError("own"),
    "nan": Judgement.model_construct(
        judge_id="j", prompt_version="1", p_unsafe=float("nan"), label=None, failed=None
    ),
    "below": Judgement(judge_id="j", prompt_version="1", p_unsafe=0.1).model_copy(
        update={"p_unsafe": -0.3}
    ),
    "contradiction": Judgement.model_construct(
        judge_id="j", prompt_version="1", p_unsafe=0.01, label="unsafe", failed=None
    ),
    "malformed": Judgement(
        judge_id="j", prompt_version="1", label="safe", parse_status="malformed"
    ),
    "nothing": Judgement(judge_id="j", prompt_version="1"),
}


@both
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_check_is_no_pass(door: Door, mode: str, fault: str) -> None:
    guard = guard_of(mode, ScriptedJudge(FAULTS[fault]))
    outcome = door(guard, ask())
    assert outcome.text == REVIEW
    (verdict,) = outcome.verdicts
    assert (verdict.label, verdict.degraded, verdict.action) == (None, True, "review")
    assert verdict.error
    assert asked_of_the_model(guard) == 0


@both
def test_an_unsafe_answer_leaves_nothing_behind(door: Door, mode: str) -> None:
    judge = ScriptedJudge(lambda request: 0.1 if request.stage == "input" else 0.9)
    guard = guard_of(mode, judge, stages={"output": {"when": "always"}})
    outcome = door(guard.bind(safecode_trace=True) if mode == "guard" else guard, ask())
    assert outcome.text == REFUSAL
    assert [(v.stage, v.action) for v in outcome.verdicts] == [
        ("input", "guide" if mode == "guard" else "pass"),
        ("output", "block"),
    ]
    assert [v.id for v in outcome.ear.verdicts] == [v.id for v in outcome.verdicts]
    assert asked_of_the_model(guard) == 1
    withheld(outcome)


@both
def test_a_judged_answer_comes_out_whole(door: Door, mode: str) -> None:
    guard = guard_of(mode, ScriptedJudge(0.1), stages={"output": {"when": "always"}})
    outcome = door(guard, ask())
    assert outcome.text == SECRET
    assert [v.stage for v in outcome.verdicts] == ["input", "output"]


@both
def test_the_rail_judges_answers_to_text_alone_if_it_is_always_on(door: Door, mode: str) -> None:
    guard = guard_of(mode, ScriptedJudge(0.9), stages={"output": {"when": "always"}})
    outcome = door(guard, [HumanMessage("Hello!")])
    assert outcome.text == REFUSAL
    assert [v.stage for v in outcome.verdicts] == ["output"]
    withheld(outcome)


@both
def test_a_failed_check_of_the_answer_withholds_it(door: Door, mode: str) -> None:
    def script(request: Any) -> Any:
        return 0.1 if request.stage == "input" else JudgeError("down")

    guard = guard_of(mode, ScriptedJudge(script), stages={"output": {"when": "always"}})
    outcome = door(guard, ask())
    assert outcome.text == REVIEW
    withheld(outcome)


@both
def test_an_undecided_answer_is_held(door: Door, mode: str) -> None:
    def script(request: Any) -> Any:
        return 0.1 if request.stage == "input" else 0.5

    guard = guard_of(mode, ScriptedJudge(script), stages={"output": {"when": "always"}})
    outcome = door(guard, ask())
    assert outcome.text == REVIEW
    withheld(outcome)


@both
def test_a_judge_that_is_late_does_not_hold_the_turn_up(door: Door, mode: str) -> None:
    guard = guard_of(mode, ScriptedJudge(Delay(3.0, 0.1)), deadline_s=0.2)
    started = time.monotonic()
    outcome = door(guard, ask())
    assert time.monotonic() - started < 2.5
    assert outcome.text == REVIEW
    assert outcome.verdicts[0].degraded


@both
def test_captions_are_content_and_stay_out_unless_asked_for(door: Door, mode: str) -> None:
    judgement = Judgement(judge_id="j", prompt_version="1", p_unsafe=0.1, caption="CAPTION")
    outcome = door(guard_of(mode, ScriptedJudge(judgement)), ask())
    assert "CAPTION" not in outcome.everything
    kept = door(guard_of(mode, ScriptedJudge(judgement), record_content=True), ask())
    assert kept.verdicts[0].caption == "CAPTION"


@both
def test_the_same_call_gives_the_same_answer(door: Door, mode: str) -> None:
    guard = guard_of(mode, ScriptedJudge(0.9), actions={"unsafe": "block"})
    first, second = door(guard, ask()), door(guard, ask())
    assert first.text == second.text
    assert (first.verdicts[0].p_unsafe, first.verdicts[0].policy) == (
        second.verdicts[0].p_unsafe,
        second.verdicts[0].policy,
    )
    assert second.verdicts[0].judge.cached


class Answer(BaseModel):
    text: str


@both
@pytest.mark.parametrize("p", [0.9, 0.5])
def test_a_forced_form_that_is_not_judged_safe_is_blocked(mode: str, p: float) -> None:
    guard = guard_of(mode, ScriptedJudge(p))
    forced = {"type": "json_schema", "json_schema": {"schema": Answer.model_json_schema()}}
    with pytest.raises(TurnBlocked, match="refusal branch"):
        guard.invoke(ask(), response_format=forced)
    assert asked_of_the_model(guard) == 0


# -- batches: what is wrong with one row is that row's alone --------------------------------------


def rows() -> list[list[BaseMessage]]:
    return [ask(f"row {i}") for i in range(4)]


@both
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_one_bad_row_costs_the_others_nothing(mode: str, asynchronous: bool) -> None:
    def script(request: Any) -> Any:
        return {"row 1": 0.9, "row 2": JudgeError("down")}.get(request.scene.request, 0.1)

    guard = guard_of(mode, ScriptedJudge(script), actions={"unsafe": "block"}, on_block="raise")
    inputs: list[Any] = [*rows(), [HumanMessage([BROKEN])], "Hello!"]
    if asynchronous:
        found = await guard.abatch(inputs, return_exceptions=True)
    else:
        found = guard.batch(inputs, return_exceptions=True)
    assert [getattr(one, "text", None) for one in found] == [
        SECRET, None, None, SECRET, None, SECRET,
    ]  # fmt: skip
    assert [type(found[i]) for i in (1, 2, 4)] == [TurnBlocked] * 3
    assert Verdict.from_message(found[0]).label == "safe"
