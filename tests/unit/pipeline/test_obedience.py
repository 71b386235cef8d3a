"""Whether steered answers obeyed, and what follows if they did not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.language_models import FakeListChatModel

from safecode_guard.engines.delegate import DelegateEngine
from safecode_guard.models.protocol import Needs
from safecode_guard.pipeline.host import EventLoop
from safecode_guard.pipeline.requests import Piece, TurnResult
from safecode_guard.policy import Policy
from safecode_guard.testing import ScriptedJudge, ScriptedServer, ScriptedVLM
from safecode_guard.verdict import Judgement, Verdict
from tests.unit.pipeline.serving import BLOCKING, HELP, REFUSAL, heard, kinds, request, served

STUBBORN = {HELP: 3.0, REFUSAL: 0.0}
"""A lambda of 1 does not bring its refusal about, and four times as much does."""
DEAF = {HELP: 30.0, REFUSAL: 0.0}
WARNING = "That would be dangerous. Step back."
STRONGER = {"on_disobeyed": "retry"}
ENGINES = {"logits": ScriptedVLM, "record": lambda texts: ScriptedServer(ScriptedVLM(texts))}


def answered(turns, **fields) -> TurnResult:
    (result,) = turns.run([request(**fields)])
    assert isinstance(result, TurnResult), result
    return result


def told(result: TurnResult) -> tuple:
    verdict = result.verdicts[0]
    return verdict.obeyed, verdict.followed_by


def by_stage(turn: float, answer: float | Exception | Judgement) -> ScriptedJudge:
    return ScriptedJudge(lambda judged: answer if judged.stage == "output" else turn)


def texts_of(events) -> list[str]:
    return [event.text for _, event in events if isinstance(event, Piece)]


# -- told ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p_unsafe", "text", "obeyed"),
    [
        (0.9, REFUSAL, True),
        (0.9, f"**Answer:** {REFUSAL}", True),
        (0.9, WARNING, True),
        (0.9, HELP, False),
        (0.9, f"{HELP} Go on. Faster. {REFUSAL}", False),
        (0.1, HELP, True),
        (0.1, WARNING, True),
        (0.1, REFUSAL, False),
        (0.9, "", None),
        (0.9, f"<think>{REFUSAL}", None),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_obeyed_or_not(engine, p_unsafe, text, obeyed):
    result = answered(served(p_unsafe, ENGINES[engine](text)))
    assert result.text == text
    assert told(result) == (obeyed, None)


@pytest.mark.parametrize(
    ("p_unsafe", "policy"),
    [
        (0.5, {}),  # undecided, and passes
        (0.5, {"actions": {"undecided": "guide"}}),  # undecided, and steered
        (ValueError("broken"), {"actions": {"judge_error": "guide"}}),
        (0.9, {"actions": {"unsafe": "pass"}}),
        (0.9, BLOCKING),
        (0.9, {"decoding": {"strategy": "plain"}}),
    ],
)
@pytest.mark.parametrize("follows", ["report", "retry", "replace", "rail"])
def test_of_other_turns_it_is_not_told(p_unsafe, policy, follows):
    verdicts: list[Verdict] = []
    judge = ScriptedJudge([p_unsafe])
    turns = served(judge, ScriptedVLM(HELP), policy | {"on_disobeyed": follows})
    result = answered(turns, run=heard(verdicts))
    assert told(result) == (None, None)
    assert verdicts == list(result.verdicts)


def test_a_model_that_is_only_called_is_not_steered():
    engine = DelegateEngine(FakeListChatModel(responses=[HELP]))
    result = answered(served(0.1, engine, {"mode": "judge_only"}, steers=False))
    assert (result.text, told(result)) == (HELP, (None, None))


def test_a_prompt_that_tells_the_verdict_is_steering_too():
    result = answered(served(0.9, policy={"decoding": {"strategy": "verdict_prompt"}}))
    assert told(result) == (False, None)


def test_it_is_told_in_every_language_and_by_own_phrases():
    turns = served(
        0.9,
        ScriptedVLM("Nope, not me."),
        {"decoding": {"refusal_languages": ["en"], "refusal_phrases": ["Nope"]}},
    )
    assert told(answered(turns)) == (True, None)
    german = ScriptedVLM("Dabei kann ich nicht helfen.")
    policy = {"decoding": {"refusal_languages": ["en"]}}
    assert told(answered(served(0.9, german, policy))) == (True, None)


class Whole:
    """A sink that also hears what became of answers."""

    def __init__(self) -> None:
        self.told: list[Verdict] = []

    def __call__(self, verdict: Verdict) -> None:
        self.told.append(verdict)

    closed = __call__


def test_the_verdict_is_told_before_the_answer_and_closed_with_it():
    verdicts: list[Verdict] = []
    kept: list[Verdict] = []
    whole = Whole()
    turns = served(0.9, sinks=(kept.append, whole))
    result = answered(turns, run=heard(verdicts))
    assert [(v.id, v.obeyed, v.closed) for v in verdicts] == [
        (result.verdicts[0].id, None, False),
        (result.verdicts[0].id, False, True),
    ]
    assert kept == verdicts[:1]  # a sink that is a mere function hears of each verdict once
    assert whole.told == verdicts
    assert verdicts[1] == verdicts[0].model_copy(update={"obeyed": False}) == result.verdicts[0]


# -- by a judge ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "text", "obeyed"),
    [
        (0.1, HELP, True),  # a warning in words that no lexicon has
        (0.9, REFUSAL, False),  # it refuses and then helps
        (0.5, HELP, False),  # undecided: the lexicon tells
        (0.5, REFUSAL, True),
        (ValueError("broken"), REFUSAL, True),
    ],
)
def test_a_judge_tells_of_unsafe_turns_and_the_lexicon_where_it_cannot(found, text, obeyed):
    verdicts: list[Verdict] = []
    judge = by_stage(0.9, found)
    turns = served(judge, ScriptedVLM(text), {"obeyed_by": "judge"})
    events = list(turns.events([request(live=True, run=heard(verdicts))]))
    assert kinds(events) == ["Verdict", "Piece", "Verdict", "TurnResult"]
    assert "".join(texts_of(events)) == text
    assert told(events[-1][1]) == (obeyed, None)
    assert [judged.stage for judged in judge.requests] == ["input", "output"]
    assert {verdict.stage for verdict in verdicts} == {"input"}  # it decides nothing


def test_of_safe_turns_no_judge_is_asked():
    judge = by_stage(0.1, 0.1)
    assert told(answered(served(judge, ScriptedVLM(REFUSAL), {"obeyed_by": "judge"})))[0] is False
    assert [judged.stage for judged in judge.requests] == ["input"]


def test_the_rails_verdict_is_asked_for_once():
    judge = by_stage(0.9, 0.1)
    policy = {"obeyed_by": "judge", "stages": {"output": {"when": "always"}}}
    result = answered(served(judge, ScriptedVLM(HELP), policy))
    assert [judged.stage for judged in judge.requests] == ["input", "output"]
    assert [(v.stage, v.obeyed) for v in result.verdicts] == [("input", True), ("output", None)]


# -- a second answer -------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_answer_is_pushed_harder_and_nothing_of_the_first_is_seen(engine):
    verdicts: list[Verdict] = []
    turns = served(0.9, ENGINES[engine](STUBBORN), STRONGER)
    events = list(turns.events([request(live=True, trace=True, run=heard(verdicts))]))
    assert kinds(events) == ["Verdict", "Piece", "TurnResult"]
    assert texts_of(events) == [REFUSAL] == [events[-1][1].text]
    assert told(events[-1][1]) == (True, "retry")
    first, second = (verdict.decoding for verdict in verdicts)
    assert first is not None
    assert second is not None
    assert second.parameters["push"] == pytest.approx(4 * first.parameters["push"])
    assert events[-1][1].verdicts == (verdicts[1],)


def test_without_it_the_first_answer_stands():
    assert told(answered(served(0.9, ScriptedVLM(STUBBORN)))) == (False, None)


def test_a_refusal_after_a_safe_verdict_is_answered_again_as_well():
    vlm = ScriptedVLM({REFUSAL: 1.5, HELP: 0.0})
    result = answered(served(0.1, vlm, STRONGER))
    assert (result.text, told(result)) == (HELP, (True, "retry"))


def test_a_second_answer_that_does_not_obey_either_is_the_last():
    vlm = ScriptedVLM(DEAF)
    result = answered(served(0.9, vlm, STRONGER))
    assert (result.text, told(result)) == (HELP, (False, "retry"))


def test_an_answer_that_obeyed_is_not_given_again():
    vlm = ScriptedVLM(REFUSAL)
    result = answered(served(0.9, vlm, STRONGER | {"decoding": {"alpha": 0.0}}))
    assert told(result) == (True, None)
    assert [kind for kind, _, _ in vlm.calls].count("prefill") == 1


@pytest.mark.parametrize("decoding", [{"strategy": "verdict_prompt"}, {"lambda_boost": 0.0}])
def test_what_cannot_be_pushed_harder_is_not_answered_again(decoding):
    vlm = ScriptedVLM(HELP)
    result = answered(served(0.9, vlm, STRONGER | {"decoding": {"alpha": 0.0, **decoding}}))
    assert told(result) == (False, None)
    assert [kind for kind, _, _ in vlm.calls].count("prefill") == 1


def test_in_a_batch_only_those_that_did_not_obey_are_answered_again():
    vlm = ScriptedVLM(STUBBORN)
    judge = ScriptedJudge(lambda judged: 0.9 if "cliff" in judged.scene.request else 0.1)
    turns = served(judge, vlm, STRONGER | {"decoding": {"alpha": 0.0}})
    asked = [request(text) for text in ("cliff", "park", "cliff two", "lake")]
    results = turns.run(asked)
    assert [result.text for result in results] == [REFUSAL, HELP, REFUSAL, HELP]
    assert [told(r) for r in results] == [(True, "retry"), (True, None)] * 2
    assert [rows for kind, rows, _ in vlm.calls if kind == "prefill"] == [4, 2]


@pytest.mark.parametrize("follows", ["report", "retry", "replace", "rail"])
async def test_it_is_the_same_on_an_event_loop(follows):
    turns = served(0.9, ScriptedVLM(STUBBORN), {"on_disobeyed": follows})
    here = list(turns.events([request(live=True)]))
    with ThreadPoolExecutor(4) as workers:
        host = EventLoop(workers)
        there = [event async for event in turns.stream([request(live=True)], host)]
    assert kinds(there) == kinds(here)
    assert there[-1][1].text == here[-1][1].text
    assert told(there[-1][1]) == told(here[-1][1])


def test_a_strategy_that_breaks_on_the_second_answer_ends_the_turn():
    class Once:
        id = "once"
        needs = Needs(logits=False)

        def prepare(self, context):
            if context.insistence > 1:
                raise RuntimeError("cannot")
            return self

        def edit(self, turn):
            return turn

        def record(self, context):
            return {}

    (error,) = served(0.9, policy=STRONGER, strategy=Once()).run([request()])
    assert isinstance(error, RuntimeError)


# -- other answers ---------------------------------------------------------------------------


def test_the_guards_refusal_takes_the_place_of_an_answer_that_did_not_obey():
    turns = served(0.9, policy={"on_disobeyed": "replace", "refusal_text": "No."})
    events = list(turns.events([request(live=True, trace=True)]))
    assert kinds(events) == ["Verdict", "TurnResult"]
    result = events[-1][1]
    assert (result.text, result.finish, result.tokens, result.trace) == (
        *("No.", "content_filter"),
        *((), ()),
    )
    assert told(result) == (False, "replace")


@pytest.mark.parametrize(
    ("found", "text", "actions"), [(0.1, HELP, ["pass"]), (0.9, "No.", ["block"])]
)
def test_an_answer_that_did_not_obey_is_judged_as_a_rail_would(found, text, actions):
    policy = {"on_disobeyed": "rail", "refusal_text": "No."}
    result = answered(served(by_stage(0.9, found), ScriptedVLM(HELP), policy), live=True)
    assert result.text == text
    assert told(result) == (False, "rail")
    assert [v.action for v in result.verdicts[1:]] == actions
    assert [v.stage for v in result.verdicts[1:]] == ["output"]


@pytest.mark.parametrize("follows", ["replace", "rail"])
@pytest.mark.parametrize(("p_unsafe", "text"), [(0.9, REFUSAL), (0.1, HELP), (0.1, REFUSAL)])
def test_nothing_else_is_replaced_or_judged(follows, p_unsafe, text):
    judge = by_stage(p_unsafe, 0.9)
    result = answered(served(judge, ScriptedVLM(text), {"on_disobeyed": follows}))
    assert (result.text, result.verdicts[0].followed_by) == (text, None)
    assert [judged.stage for judged in judge.requests] == ["input"]


# -- failing closed --------------------------------------------------------------------------


@pytest.mark.parametrize("follows", ["report", "retry", "replace", "rail"])
def test_an_answer_whose_fate_cannot_be_recorded_is_not_given(follows):
    class Full(Whole):
        def closed(self, verdict: Verdict) -> None:
            raise OSError("disk full")

    turns = served(0.9, policy={"on_disobeyed": follows}, sinks=(Full(),))
    (error,) = turns.run([request()])
    assert isinstance(error, OSError)


def test_a_rail_that_breaks_withholds_the_answer():
    policy = Policy(on_disobeyed="rail").model_dump(exclude_unset=True)
    result = answered(served(by_stage(0.9, ValueError("x")), ScriptedVLM(HELP), policy))
    assert result.text == Policy().review_text
