"""The guarded turn: what comes in which order, and what happens when something goes wrong."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage

from safecode_guard.engines.delegate import DelegateEngine
from safecode_guard.errors import ModelError, Overloaded, TurnBlocked, TurnTimeout
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.protocol import BaseJudge
from safecode_guard.models.protocol import Needs, Sampling
from safecode_guard.output.request import OutputForm, constraints
from safecode_guard.pipeline.admission import Admission
from safecode_guard.pipeline.guarded import GuardedTurns
from safecode_guard.pipeline.host import EventLoop
from safecode_guard.pipeline.requests import Piece, Run, TurnRequest, TurnResult
from safecode_guard.policy import Policy
from safecode_guard.testing import Delay, ScriptedJudge, ScriptedServer, ScriptedVLM
from safecode_guard.turns.reading import read_turn
from safecode_guard.verdict import Verdict
from tests.messages import image_block, text_block
from tests.unit.pipeline.serving import (
    BLOCKING,
    HELP,
    REFUSAL,
    examiner,
    heard,
    kinds,
    request,
    served,
    turn,
    words,
)

TORN = {HELP: 0.3, REFUSAL: 0.0}
LONG = "a long answer " * 20
RAIL = {"stages": {"output": {"when": "always"}}}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def cliffs(judged) -> float:
    return 0.95 if "cliff" in judged.scene.request else 0.05


def by_request() -> ScriptedJudge:
    return ScriptedJudge(cliffs)


def texts(results) -> list[str]:
    assert all(isinstance(result, TurnResult) for result in results), results
    return [result.text for result in results]


def forced(vlm: ScriptedVLM, *, allow_refusal: bool = False) -> TurnRequest:
    form = OutputForm(schema=SCHEMA, allow_refusal=allow_refusal)
    constraint, refusal = constraints(vlm.vocabulary, form)
    return request(constraint=constraint, refusal=refusal)


@pytest.fixture
def host():
    with ThreadPoolExecutor(4) as workers:
        yield EventLoop(workers)


# -- order -----------------------------------------------------------------------------------


def test_a_turn_is_its_verdict_its_text_and_its_result():
    events = list(served(0.9).events([request(live=True)]))
    assert kinds(events) == ["Verdict", "Piece", "Verdict", "TurnResult"]
    pieces = [event.text for _, event in events if isinstance(event, Piece)]
    assert len(pieces) > 3
    (_, verdict), (_, closed), (_, result) = events[0], events[-2], events[-1]
    assert "".join(pieces) == result.text
    assert result.verdicts == (closed,)
    assert closed == verdict.model_copy(update={"obeyed": False})


async def test_it_is_the_same_on_an_event_loop(host):
    turns = served(0.95, ScriptedVLM(TORN))
    here = list(turns.events([request(live=True)]))
    there = [event async for event in turns.stream([request(live=True)], host)]
    assert [type(event) for _, event in there] == [type(event) for _, event in here]
    assert there[-1][1].text == here[-1][1].text == REFUSAL


@pytest.mark.parametrize("engine", [ScriptedVLM, lambda t: ScriptedServer(ScriptedVLM(t))])
def test_it_is_the_same_on_engines_that_steer_by_record(engine):
    assert texts(served(0.95, engine(TORN)).run([request()])) == [REFUSAL]


def test_an_unjudged_turn_has_no_verdict():
    events = list(served().events([request(words())]))
    assert kinds(events) == ["Piece", "TurnResult"]
    assert events[-1][1].verdicts == ()


def test_a_verdict_is_told_to_its_run_before_anything_is_generated():
    order = []
    vlm = ScriptedVLM(lambda scene: order.append("model") or HELP)
    run = Run("run-1", lambda verdict: order.append("verdict"))
    served(0.9, vlm).run([request(run=run)])
    assert order == ["verdict", *["model"] * (len(order) - 2), "verdict"]  # and once more, closed


# -- stopping --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "text"), [("block", Policy().refusal_text), ("review", Policy().review_text)]
)
def test_a_stopped_turn_is_answered_by_the_guard_and_never_reaches_the_engine(action, text):
    vlm = ScriptedVLM(HELP)
    admission = Admission(active=1, waiting=0)
    turns = served(0.9, vlm, {"actions": {"unsafe": action}}, admission=admission)
    with admission.enter():
        (result,) = turns.run([request()])
    assert (result.text, result.finish, result.tokens) == (text, "content_filter", ())
    assert vlm.calls == []


def test_raising_on_block():
    (error,) = served(0.9, policy={**BLOCKING, "on_block": "raise"}).run([request()])
    assert isinstance(error, TurnBlocked)
    assert error.verdict.action == "block"


def test_what_cannot_be_judged_is_refused_unseen():
    audio = {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}
    asked = read_turn([HumanMessage([image_block(), audio, text_block("?")])])
    judge, vlm = ScriptedJudge(0.1), ScriptedVLM(HELP)
    (result,) = served(judge, vlm).run([request(asked)])
    assert result.verdicts[0].degraded
    assert (judge.requests, vlm.calls) == ([], [])


# -- several turns ---------------------------------------------------------------------------


def test_each_turn_follows_its_own_verdict():
    turns = served(by_request(), ScriptedVLM(TORN))
    results = turns.run([request(text) for text in ("park", "cliff", "lake")])
    assert texts(results) == [HELP, REFUSAL, HELP]
    assert [result.verdicts[0].label for result in results] == ["safe", "unsafe", "safe"]


def test_turns_that_fit_together_are_one_batch_and_others_are_not():
    vlm = ScriptedVLM(HELP)
    asked = [request("a"), request("b"), request(turn("c", "red", "blue")), request(words())]
    assert texts(served(0.5, vlm).run(asked)) == [HELP] * 4
    assert sorted(rows for kind, rows, _ in vlm.calls if kind == "prefill") == [1, 1, 2]


def test_sampling_that_differs_is_not_mixed():
    vlm = ScriptedVLM(HELP)
    warm = Sampling(do_sample=True, temperature=0.7, seed=1, max_tokens=64)
    assert texts(served(0.5, vlm).run([request(), request(sampling=warm)])) == [HELP] * 2
    assert [rows for kind, rows, _ in vlm.calls if kind == "prefill"] == [1, 1]


def test_stopped_turns_leave_the_others_their_batch():
    vlm = ScriptedVLM(HELP)
    results = served(by_request(), vlm, BLOCKING).run(
        [request("cliff"), request("a"), request("b")]
    )
    assert [result.withheld for result in results] == [True, False, False]
    assert [rows for kind, rows, _ in vlm.calls if kind == "prefill"] == [4]


def test_the_order_of_results_is_that_of_the_requests():
    vlm = ScriptedVLM(lambda scene: scene.question or "none")
    asked = [request(words("w")), request("a"), request(turn("two", "red", "blue")), request("b")]
    assert texts(served(0.5, vlm).run(asked)) == ["w", "a", "two", "b"]


# -- a model that judges itself --------------------------------------------------------------


def own(vlm: ScriptedVLM, policy=None, **options) -> GuardedTurns:
    return served(LabelLogitsJudge(vlm), vlm, policy, **options)


def test_verdict_and_answer_share_a_prefill_and_second_views_come_after():
    vlm = ScriptedVLM(TORN, p_unsafe=0.9)
    (result,) = own(vlm).run([request()])
    assert result.text == REFUSAL
    prefills = [(rows, tokens) for kind, rows, tokens in vlm.calls if kind == "prefill"]
    assert [rows for rows, _ in prefills] == [1, 1]
    undecided = ScriptedVLM(TORN, p_unsafe=0.5)
    own(undecided).run([request()])
    assert [kind for kind, _, _ in undecided.calls].count("prefill") == 1


def test_a_batch_that_judges_itself_is_judged_and_answered_together():
    def found(scene):
        return 0.95 if "cliff" in scene.prompt else 0.05

    vlm = ScriptedVLM(TORN, p_unsafe=found)
    results = own(vlm, {"decoding": {"alpha": 0.0}}).run(
        [request(text) for text in ("park", "cliff", "lake")]
    )
    assert texts(results) == [HELP, REFUSAL, HELP]
    assert [rows for kind, rows, _ in vlm.calls if kind == "prefill"] == [3]


def test_a_self_judged_turn_that_is_blocked_ends_after_its_verdict():
    vlm = ScriptedVLM(HELP, p_unsafe=0.9)
    (result,) = own(vlm, BLOCKING).run([request()])
    assert result.withheld
    assert "step" not in {kind for kind, _, _ in vlm.calls}


def test_a_member_of_a_judge_that_asks_the_engine_has_the_open_prompt():
    class Both(BaseJudge):
        id = "both"

        def __init__(self, vlm):
            self.members = (LabelLogitsJudge(vlm),)

        def judge(self, judged):
            seen.append(judged.prompt)
            return self.members[0].judge(judged)

    seen = []
    vlm = ScriptedVLM(HELP, p_unsafe=0.5)
    served(Both(vlm), vlm).run([request()])
    assert seen[0].engine is vlm
    assert [kind for kind, _, _ in vlm.calls].count("prefill") == 1


def test_it_waits_for_its_place_before_it_judges_and_anothers_judge_does_not():
    for judging, asked in (
        (lambda vlm: LabelLogitsJudge(vlm), 0),
        (lambda vlm: ScriptedJudge(), 1),
    ):
        vlm, admission = ScriptedVLM(HELP), Admission(active=1, waiting=0)
        judge = judging(vlm)
        with admission.enter():
            (error,) = served(judge, vlm, admission=admission).run([request()])
        assert isinstance(error, Overloaded)
        assert len(getattr(judge, "requests", ())) == asked
        assert vlm.calls == []


# -- the rail --------------------------------------------------------------------------------


def railed(judged) -> float:
    return 0.95 if judged.stage == "output" else 0.1


def test_a_railed_answer_comes_whole_after_its_verdict():
    events = list(served(0.1, policy=RAIL).events([request(live=True)]))
    assert kinds(events) == ["Verdict", "Piece", "TurnResult"]
    told = [(event.stage, event.closed) for _, event in events if isinstance(event, Verdict)]
    assert told == [("input", False), ("input", True), ("output", False)]
    assert [event.text for _, event in events if isinstance(event, Piece)] == [HELP]
    assert [v.stage for v in events[-1][1].verdicts] == ["input", "output"]


def test_of_a_withheld_answer_no_event_holds_anything():
    events = list(
        served(ScriptedJudge(railed), policy=RAIL).events([request(live=True, trace=True)])
    )
    assert kinds(events) == ["Verdict", "TurnResult"]
    result = events[-1][1]
    assert (result.text, result.finish) == (Policy().refusal_text, "content_filter")
    assert (result.tokens, result.trace, result.prompt_tokens, result.native) == ((), (), 0, None)
    assert HELP not in repr(events)


def test_the_rail_holds_no_place_while_another_judge_thinks():
    admission, free = Admission(active=1, waiting=0), []

    def judged(seen):
        if seen.stage == "output":
            with admission.enter():
                free.append(True)
        return 0.1

    served(ScriptedJudge(judged), policy=RAIL, admission=admission).run([request()])
    assert free == [True]


def test_a_rail_that_judges_on_the_engine_waits_for_a_place():
    vlm, admission = ScriptedVLM(HELP, p_unsafe=0.1), Admission(active=1, waiting=4)
    (result,) = own(vlm, RAIL, admission=admission).run([request()])
    assert [v.stage for v in result.verdicts] == ["input", "output"]


def test_a_rail_that_fails_hands_nothing_out():
    def judged(seen):
        return RuntimeError("down") if seen.stage == "output" else 0.1

    (result,) = served(ScriptedJudge(judged), policy=RAIL).run([request()])
    assert result.withheld
    assert result.verdicts[-1].degraded


def test_an_answer_that_cannot_be_read_is_not_handed_out():
    class Unreadable(DelegateEngine):
        def open(self, *args, **kwargs):
            session = super().open(*args, **kwargs)
            return _Unread(session)

    class _Unread:
        def __init__(self, session):
            self.session, self.close = session, session.close

        def answer(self, jobs):
            for delta in self.session.answer(jobs):
                yield replace(delta, read=self._read)

        def _read(self):
            raise ModelError("no such block")

    engine = Unreadable(FakeListChatModel(responses=[HELP]))
    (error,) = served(0.1, engine, RAIL, steers=False).run([request()])
    assert isinstance(error, ModelError)


# -- forced forms ----------------------------------------------------------------------------


def test_a_forced_form_passes_unsteered_if_it_is_safe():
    vlm = ScriptedVLM('{"name": "edge"}')
    (result,) = served(0.1, vlm).run([forced(vlm)])
    assert result.text == '{"name": "edge"}'
    assert (result.verdicts[0].action, result.verdicts[0].decoding) == ("pass", None)


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_a_forced_form_without_a_refusal_branch_is_blocked_otherwise(p):
    vlm = ScriptedVLM('{"name": "edge"}')
    (error,) = served(p, vlm).run([forced(vlm)])
    assert isinstance(error, TurnBlocked)
    assert error.verdict.action == "block"
    assert vlm.calls == []


def test_with_a_refusal_branch_it_refuses():
    vlm = ScriptedVLM('{"name": "edge"}')
    (result,) = served(0.9, vlm).run([forced(vlm, allow_refusal=True)])
    assert result.refused
    assert result.text.startswith('{"refusal"')
    assert result.verdicts[0].action == "guide"


# -- deadlines and queues --------------------------------------------------------------------


def test_a_deadline_ends_an_answer():
    class Slow(ScriptedVLM):
        def next_logits(self, ids, images):
            time.sleep(0.01)
            return super().next_logits(ids, images)

    (error,) = served(0.5, Slow(LONG)).run([request(deadline=time.monotonic() + 0.15)])
    assert isinstance(error, TurnTimeout)
    assert "tokens" in str(error)


def test_who_is_late_while_waiting_costs_the_others_nothing():
    admission, vlm = Admission(active=1, waiting=1), ScriptedVLM(HELP)
    turns, ends = served(0.5, vlm, admission=admission), []
    asked = [request("a", deadline=time.monotonic() + 0.05), request("b")]
    with admission.enter():
        thread = threading.Thread(target=lambda: ends.extend(turns.run(asked)))
        thread.start()
        time.sleep(0.2)
    thread.join(5)
    assert isinstance(ends[0], TurnTimeout)
    assert ends[1].text == HELP


def test_a_full_queue_strikes_all_that_stand_in_it():
    admission = Admission(active=1, waiting=0)
    with admission.enter():
        ends = served(by_request(), policy=BLOCKING, admission=admission).run(
            [request("a"), request("cliff"), request("b")]
        )
    assert [type(end) for end in ends] == [Overloaded] * 3


def test_a_deadline_that_passes_in_the_judge_is_a_failed_check():
    judge = ScriptedJudge(Delay(1.0, 0.1))
    (result,) = served(judge).run([request(deadline=time.monotonic() + 0.05)])
    assert (result.verdicts[0].label, result.withheld) == (None, True)


# -- what goes wrong -------------------------------------------------------------------------


def test_a_broken_model_is_each_turns_error_and_the_next_call_works():
    broken = ScriptedVLM(HELP, error=ModelError("down"))
    admission = Admission(active=1, waiting=0)
    for _ in range(2):
        ends = served(0.5, broken, admission=admission).run([request("a"), request("b")])
        assert [type(end) for end in ends] == [ModelError] * 2


def test_a_turn_that_breaks_its_batch_is_answered_alone_and_fails_alone():
    class Picky(ScriptedVLM):
        def encode(self, turns, *, tools=(), **options):
            if any("bad" in turn.query for turn in turns):
                raise ModelError("no such layout")
            return super().encode(turns, tools=tools, **options)

    ends = served(0.5, Picky(HELP)).run([request("a"), request("bad"), request("b")])
    assert [getattr(end, "text", type(end)) for end in ends] == [HELP, ModelError, HELP]


class Broken:
    """A strategy that fails for cliffs, at once or at its first step."""

    id = "broken"
    needs = Needs()
    steps = 2
    second = None
    max_tokens = None

    def __init__(self, when: str) -> None:
        self.when = when

    def prepare(self, context):
        cliff = "cliff" in context.turn.query
        if cliff and self.when == "prepare":
            raise ZeroDivisionError
        return self if cliff else None

    def record(self, context):
        return {}

    def done(self, so_far):
        return len(so_far) >= self.steps

    def adjust(self, step):
        raise ZeroDivisionError


@pytest.mark.parametrize("when", ["prepare", "adjust"])
def test_a_strategy_that_breaks_costs_its_own_turn_the_answer_and_no_other(when):
    vlm = ScriptedVLM(HELP)
    turns = served(0.9, vlm, strategy=Broken(when))
    events = list(turns.events([request("park"), request("cliff"), request("lake")]))
    ends = [dict(events)[i] for i in range(3)]
    assert [getattr(end, "text", type(end)) for end in ends] == [HELP, ZeroDivisionError, HELP]
    spoken = [e for i, e in events if i == 1 and isinstance(e, Piece)]
    assert spoken == []


def test_after_a_strategy_broke_no_verdict_is_told():
    told = []
    served(0.9, strategy=Broken("prepare")).run([request("cliff", run=heard(told))])
    assert told == []


def test_each_turn_ends_once():
    turns = served(by_request(), ScriptedVLM(TORN), {**BLOCKING, **RAIL})
    events = list(turns.events([request("park"), request("cliff"), request(words())]))
    ends = [i for i, event in events if isinstance(event, TurnResult | Exception)]
    assert sorted(ends) == [0, 1, 2]


# -- leaving ---------------------------------------------------------------------------------


def test_events_that_are_left_free_the_place():
    vlm, admission = ScriptedVLM(LONG), Admission(active=1, waiting=0)
    events = served(0.5, vlm, admission=admission).events([request(live=True)])
    for _ in range(4):
        next(events)
    events.close()
    done = len(vlm.calls)
    with admission.enter():
        pass
    assert len(vlm.calls) == done < 20


async def test_a_cancelled_stream_frees_the_place(host):
    vlm, admission = ScriptedVLM(LONG), Admission(active=1, waiting=0)
    turns = served(0.5, vlm, admission=admission)

    async def read():
        async for _ in turns.stream([request(live=True)], host):
            pass

    task = asyncio.create_task(read())
    while len(vlm.calls) < 3:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with admission.aenter():
        pass


def test_it_holds_nothing_of_any_turn():
    turns = GuardedTurns(
        ScriptedVLM(HELP), examiner(), steering=served()._steering, admission=Admission()
    )
    before = dict(vars(turns))
    turns.run([request()])
    assert vars(turns) == before
