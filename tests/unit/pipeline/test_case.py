"""One request on its way."""

import threading

import pytest
import torch

from safecode_guard.models.protocol import Delta, Needs, Step
from safecode_guard.pipeline.case import Case
from safecode_guard.pipeline.examiner import Finding
from safecode_guard.pipeline.rules import Decision
from safecode_guard.steering.trace import Traced
from safecode_guard.testing import ByteVocabulary
from safecode_guard.verdict import PolicyRef, Verdict
from tests.unit.pipeline.serving import heard, request, turn

VERDICT = Verdict(label="safe", action="pass", policy=PolicyRef(name="t", digest="0"))


class Quiet:
    steps = 1
    second = None
    max_tokens = None

    def done(self, so_far):
        return bool(so_far)

    def adjust(self, step):
        return step.logits[0]


def test_the_turn_is_examined_with_its_deadline_and_its_run():
    run = heard([])
    asked = request(deadline=7.0, run=run)
    subject = Case(0, asked).subject
    assert (subject.stage, subject.turn) == ("input", asked.turn)
    assert (subject.deadline, subject.run) == (7.0, run)


@pytest.mark.parametrize(
    ("action", "stops"), [("pass", False), ("guide", False), ("review", True), ("block", True)]
)
def test_a_finding_may_stop_it(action, stops):
    assert not Case(0, request()).stops
    assert Case(0, request(), Finding(Decision("unsafe", action))).stops is stops


def test_its_job_is_the_request_with_what_was_prepared():
    cancelled = threading.Event()
    asked = request(options={"effort": "low"}, live=True, deadline=7.0, cancelled=cancelled)
    case = Case(3, asked, strategy=Quiet(), needs=Needs(views=2), record={"alpha": 0.3})
    job = case.job(1)
    assert (job.index, job.turn, job.sampling) == (1, asked.turn, asked.sampling)
    assert (job.strategy, job.needs, job.record) == (case.strategy, Needs(views=2), case.record)
    assert (job.options, job.live, job.deadline) == ({"effort": "low"}, True, 7.0)
    assert job.cancelled is cancelled


def test_an_edited_turn_is_answered_in_place_of_the_requests():
    edited = turn("Refuse.")
    assert Case(0, request(), turn=edited).job(0).turn is edited


def test_a_held_answer_is_live_to_nobody():
    job = Case(0, request(live=True), held=True).job(0)
    assert (job.live, job.held) == (False, True)


def test_a_refused_case_may_only_take_the_refusal_branch():
    def answer(budget):
        raise AssertionError

    def refusal(budget):
        raise AssertionError

    asked = request(constraint=answer, refusal=refusal)
    assert Case(0, asked).job(0).constraint is answer
    assert Case(0, asked, refuse=True).job(0).constraint is refusal


def test_its_result_is_its_text_with_the_last_deltas_counts():
    case = Case(0, request(), verdict=VERDICT, text="Run.", refuse=True)
    result = case.result(Delta(0, ".", "length", (1, 2), 7, native="own"))
    assert (result.text, result.finish) == ("Run.", "length")
    assert (result.tokens, result.prompt_tokens, result.native) == ((1, 2), 7, "own")
    assert (result.verdicts, result.refused, result.trace) == ((VERDICT,), True, ())
    assert Case(0, request(), text="x").result(Delta(0, finish="stop")).verdicts == ()


def test_a_traced_strategy_leaves_its_trace():
    vocabulary = ByteVocabulary()
    traced = Traced(Quiet(), vocabulary)
    logits, ids = torch.zeros(1, vocabulary.size), torch.arange(vocabulary.size)
    traced.adjust(Step(0, logits, ids, torch.tensor([], dtype=torch.long)))
    case = Case(0, request(), strategy=traced)
    (step,) = case.result(Delta(0, finish="stop", tokens=(ord("R"),))).trace
    assert (step.step, step.chosen_text) == (0, "R")
