"""The finished answer, judged before any of it may leave."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from safecode_guard.errors import TurnBlocked
from safecode_guard.pipeline import rail
from safecode_guard.pipeline.case import Case
from safecode_guard.pipeline.requests import TurnResult
from safecode_guard.policy import Policy
from safecode_guard.turns.reading import read_turn
from safecode_guard.verdict import PolicyRef, Verdict
from tests.messages import image_block, text_block
from tests.unit.pipeline.serving import heard, request, turn

RESULT = TurnResult("Run along the edge.", "stop", 7, (1, 2), trace=("step",), native="own")


def verdict(label="unsafe", action="block", stage="output") -> Verdict:
    policy = PolicyRef(name="t", digest="0")
    return Verdict(label=label, action=action, stage=stage, policy=policy)


def policy(**fields) -> Policy:
    return Policy.load({"name": "t", **fields})


@pytest.mark.parametrize(
    ("when", "label", "applies"),
    [
        ("never", "unsafe", False),
        ("unsafe", "safe", False),
        ("unsafe", "undecided", True),
        ("unsafe", "unsafe", True),
        ("unsafe", None, True),
        ("always", "safe", True),
    ],
)
def test_the_policy_says_which_answers_are_judged(when, label, applies):
    case = Case(0, request(), verdict=verdict(label, "guide", "input"))
    assert rail.applies(case, policy(stages={"output": {"when": when}})) is applies


@pytest.mark.parametrize(
    ("when", "applies"), [("never", False), ("unsafe", False), ("always", True)]
)
def test_answers_to_unjudged_turns_are_judged_only_under_always(when, applies):
    assert rail.applies(Case(0, request()), policy(stages={"output": {"when": when}})) is applies


def test_an_answer_in_words_is_examined_with_its_turn():
    run = heard([])
    case = Case(0, request(deadline=7.0, run=run))
    subject = rail.answer_subject(case, RESULT, None)
    assert (subject.stage, subject.answer) == ("output", RESULT.text)
    assert (subject.turn, subject.own_images) == (case.request.turn, 0)
    assert (subject.deadline, subject.run) == (7.0, run)


def test_an_answer_is_examined_with_its_pictures_its_calls_and_what_cannot_be_judged():
    audio = {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}
    call = {"name": "walk", "args": {"to": "edge"}, "id": "1"}
    answer = AIMessage(
        [image_block("blue"), text_block("There."), audio],
        tool_calls=[call],
        response_metadata={"model_provider": "anthropic"},
    )
    case = Case(0, request(turn("Where?", "red", "green")))
    subject = rail.answer_subject(case, TurnResult("There.", "stop"), lambda: read_turn([answer]))
    assert subject.answer == 'There.\nwalk {"to":"edge"}'
    assert (len(subject.turn.images), subject.own_images) == (3, 1)
    assert subject.turn.messages[-1].image_indices == (2,)
    assert [skipped.kind for skipped in subject.turn.skipped] == ["audio"]
    blue = subject.turn.images[subject.turn.messages[-1].image_indices[0]]
    assert blue.pixels.getpixel((0, 0)) == (0, 0, 255)


def test_the_callers_turn_stays_what_it_was():
    case = Case(0, request(turn("Where?", "red")))
    before = case.request.turn.key()
    rail.answer_subject(case, RESULT, lambda: read_turn([HumanMessage([image_block("blue")])]))
    assert case.request.turn.key() == before


@pytest.mark.parametrize(
    ("action", "text"), [("block", Policy().refusal_text), ("review", Policy().review_text)]
)
def test_of_a_withheld_answer_nothing_is_left(action, text):
    verdicts = (verdict(action="guide", stage="input"), verdict(action=action))
    result = rail.withheld(Case(0, request(), text=RESULT.text), verdicts, policy())
    assert result == TurnResult(text, "content_filter", verdicts=verdicts)


def test_raising_instead_carries_the_last_verdict():
    last = verdict()
    error = rail.withheld(
        Case(0, request()), (verdict(stage="input"), last), policy(on_block="raise")
    )
    assert isinstance(error, TurnBlocked)
    assert error.verdict is last


@pytest.mark.parametrize("fields", [{"forced": True}, {"constraint": lambda budget: None}])
def test_no_other_text_can_stand_for_a_forced_form(fields):
    error = rail.withheld(Case(0, request(**fields)), (verdict(),), policy())
    assert isinstance(error, TurnBlocked)
    assert "allow_refusal" in error.hint
