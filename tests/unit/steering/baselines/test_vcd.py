"""The baseline VCD."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
import torch

from safecode_guard.models.protocol import Job, Needs, Sampling
from safecode_guard.policy import DecodingPolicy
from safecode_guard.steering.baselines.vcd import Vcd
from tests.families import ask, picture
from tests.reference.decode import naive_guided
from tests.reference.steering import steered
from tests.unit.steering.contexts import WORDS, context, step
from tests.unit.steering.vocabularies import byte_level


def test_it_is_the_papers_formula_at_every_token():
    made = Vcd.of(DecodingPolicy()).prepare(context(byte_level()))
    views = torch.randn((2, 40), generator=torch.Generator().manual_seed(0)) * 3
    expected = steered(
        views[0].tolist(),
        views[1].tolist(),
        [0.0] * 40,
        alpha=0.5,
        normalise="vcd",
        top_k=40,
        plausibility=0.1,
    )
    for so_far in ([], [1] * 200):
        assert not made.done(so_far)
        got = made.adjust(step(views, so_far))
        torch.testing.assert_close(got, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_the_verdict_changes_nothing():
    strategy = Vcd.of(DecodingPolicy())
    records = [strategy.record(context(byte_level(), label)) for label in ("safe", "unsafe")]
    assert records[0] == records[1]
    assert json.loads(json.dumps(records[0])) == {
        "alpha": 0.5,
        "plausibility": 0.1,
        "reference_view": "noise",
        "sigma": 1.0,
        "noise_order": "after_resize",
        "seed": 7,
    }


def test_a_policy_may_set_its_values():
    strategy = Vcd.of(DecodingPolicy(alpha=1.0, reference_view="grey", lambda_boost=9.0))
    record = strategy.record(context(byte_level()))
    assert record == {"alpha": 1.0, "plausibility": 0.1, "reference_view": "grey", "seed": 7}


@pytest.mark.parametrize(
    ("decoding", "turn"), [(DecodingPolicy(), WORDS), (DecodingPolicy(alpha=0.0), None)]
)
def test_without_anything_to_contrast_a_turn_is_left_alone(decoding, turn):
    given = context(byte_level(), **({"turn": turn} if turn else {}))
    strategy = Vcd.of(decoding)
    assert strategy.prepare(given) is None
    assert strategy.record(given) == {}


def test_a_whole_answer_is_contrasted(build):
    vlm = build("llava")
    turn = ask("What is there?", picture(1))
    strategy = Vcd.of(DecodingPolicy(alpha=1.5))
    made = strategy.prepare(context(vlm.vocabulary, turn=turn))
    sampling = Sampling(do_sample=False, max_tokens=7)
    job = Job(0, turn, sampling, strategy=made, needs=Needs(views=2))
    with closing(vlm.open([turn], sampling)) as session:
        got = next(list(delta.tokens) for delta in session.answer([job]) if delta.finish)

    def adjust(n, views, ids, so_far):
        return made.adjust(step(views, so_far.tolist()))

    assert got == naive_guided(vlm, turn, made.second, adjust, 7, 7)
