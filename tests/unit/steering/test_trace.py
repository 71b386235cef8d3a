from __future__ import annotations

import json

import pytest
import torch

from safecode_guard.models.protocol import LogitsStrategy
from safecode_guard.steering.trace import Traced
from tests.unit.steering.contexts import context, safecode, step
from tests.unit.steering.vocabularies import byte_level

VOCABULARY = byte_level()


def logits(index):
    generator = torch.Generator().manual_seed(index)
    return torch.randn((2, VOCABULARY.size), generator=generator) * 3


def decoded(strategy, steps):
    so_far = []
    while len(so_far) < steps and not strategy.done(so_far):
        adjusted = strategy.adjust(step(logits(len(so_far)), so_far))
        so_far.append(int(adjusted.argmax()))
    return so_far


@pytest.mark.parametrize("recipe", ["paper", "guarded", "reference"])
@pytest.mark.parametrize("label", ["safe", "unsafe"])
def test_tracing_changes_no_token(recipe, label):
    given = context(VOCABULARY, label)
    plain = safecode(recipe=recipe).prepare(given)
    traced = Traced(plain, VOCABULARY)
    assert isinstance(traced, LogitsStrategy)
    assert (traced.steps, traced.max_tokens) == (plain.steps, plain.max_tokens)
    assert traced.second is plain.second
    tokens = decoded(traced, 5)
    assert tokens == decoded(safecode(recipe=recipe).prepare(given), 5)
    assert [traced.done(tokens[:n]) for n in range(6)] == [plain.done(tokens[:n]) for n in range(6)]


def test_each_stage_is_recorded_best_first():
    strategy = safecode().prepare(context(VOCABULARY))
    traced = Traced(strategy, VOCABULARY, top=3)
    answer = decoded(traced, 5)
    record = traced.steps_traced(answer)[1]
    stages = strategy.stages(step(logits(1), answer[:1]))
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
    traced = Traced(safecode().prepare(context(VOCABULARY)), VOCABULARY)
    answer = decoded(traced, 3)
    assert [record.chosen for record in traced.steps_traced()] == [*answer[:2], None]
    records = traced.steps_traced([*answer, 7, 8])
    assert [record.chosen for record in records] == answer
    assert records[2].chosen_text == VOCABULARY.decode(answer[2:])


def test_one_view_has_no_second():
    traced = Traced(safecode(alpha=0).prepare(context(VOCABULARY)), VOCABULARY)
    traced.adjust(step(logits(0)[:1]))
    assert traced.steps_traced()[0].second == ()


def test_a_strategy_without_stages_is_traced_by_its_result():
    traced = Traced(safecode(recipe="reference").prepare(context(VOCABULARY)), VOCABULARY)
    (chosen,) = decoded(traced, 1)
    record = traced.steps_traced()[0]
    assert record.contrasted == record.modulated == ()
    assert [score.id for score in record.steered] == [chosen]  # ruled-out tokens are not listed


def test_a_trace_is_json():
    traced = Traced(safecode().prepare(context(VOCABULARY)), VOCABULARY, top=2)
    answer = decoded(traced, 2)
    text = json.dumps([record.to_json() for record in traced.steps_traced(answer)], allow_nan=False)
    assert json.loads(text)[1]["chosen"] == answer[1]
