from __future__ import annotations

import json

import pytest
import torch

from safecode_guard.steering.safecode.strategy import SafeCoDe
from safecode_guard.steering.trace import Traced
from tests.unit.steering.contexts import context, tokens
from tests.unit.steering.vocabularies import byte_level

VOCABULARY = byte_level()
IDS = torch.arange(VOCABULARY.size)


def logits(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn((2, VOCABULARY.size), generator=generator) * 3


def decoded(strategy, steps):
    so_far = []
    for step in range(steps):
        adjusted = strategy.adjust(step, logits(step), IDS, tokens(*so_far))
        so_far.append(int(adjusted.argmax()))
    return so_far


@pytest.mark.parametrize("mode", ["paper", "guarded", "reference"])
@pytest.mark.parametrize("label", ["safe", "unsafe"])
def test_tracing_changes_no_token(mode, label):
    given = context(VOCABULARY, label, mode=mode)
    plain = SafeCoDe().prepare(given)
    traced = Traced(SafeCoDe().prepare(given), VOCABULARY)
    assert (traced.steps, traced.views) == (plain.steps, plain.views)
    assert traced.max_tokens == plain.max_tokens
    assert decoded(traced, 5) == decoded(plain, 5)


def test_each_stage_is_recorded_best_first():
    strategy = SafeCoDe().prepare(context(VOCABULARY))
    traced = Traced(strategy, VOCABULARY, top=3)
    answer = decoded(traced, 5)
    record = traced.steps_traced(answer)[1]
    stages = strategy.stages(1, logits(1), IDS, tokens(answer[0]))
    for shown, scores in (
        (record.clean, logits(1)[0]),
        (record.second, logits(1)[1]),
        (record.contrasted, stages.contrasted),
        (record.modulated, stages.modulated),
        (record.steered, stages.steered),
    ):
        kept = min(3, int(scores.isfinite().sum()))
        assert [score.id for score in shown] == scores.topk(3).indices.tolist()[:kept]
        assert shown[0].p == pytest.approx(scores.softmax(-1).max().item())
        assert shown[0].text == VOCABULARY.decode([shown[0].id])


def test_chosen_tokens_come_from_the_text_and_the_last_from_the_answer():
    traced = Traced(SafeCoDe().prepare(context(VOCABULARY)), VOCABULARY)
    answer = decoded(traced, 3)
    assert [record.chosen for record in traced.steps_traced()] == [*answer[:2], None]
    records = traced.steps_traced([*answer, 7, 8])
    assert [record.chosen for record in records] == answer
    assert records[2].chosen_text == VOCABULARY.decode(answer[2:])


def test_one_view_has_no_second():
    traced = Traced(SafeCoDe().prepare(context(VOCABULARY, alpha=0)), VOCABULARY)
    traced.adjust(0, logits(0)[:1], IDS, tokens())
    assert traced.steps_traced()[0].second == ()


def test_a_strategy_without_stages_is_traced_by_its_result():
    given = context(VOCABULARY, mode="reference")
    traced = Traced(SafeCoDe().prepare(given), VOCABULARY)
    (chosen,) = decoded(traced, 1)
    record = traced.steps_traced()[0]
    assert record.contrasted == record.modulated == ()
    assert [score.id for score in record.steered] == [chosen]  # ruled-out tokens are not listed


def test_a_trace_is_json():
    traced = Traced(SafeCoDe().prepare(context(VOCABULARY)), VOCABULARY, top=2)
    answer = decoded(traced, 2)
    text = json.dumps([record.to_json() for record in traced.steps_traced(answer)], allow_nan=False)
    assert json.loads(text)[1]["chosen"] == answer[1]
