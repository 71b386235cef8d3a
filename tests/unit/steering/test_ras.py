"""The strategy ``ras``: what it asks, what it blends, what it writes down."""

from __future__ import annotations

import json

import torch

from safecode_guard.models.probing import Probed
from safecode_guard.risk.arithmetic import blended
from safecode_guard.risk.prototypes import Fitted, Prototypes
from safecode_guard.steering.ras.strategy import Ras
from tests.unit.steering.contexts import context, step
from tests.unit.steering.vocabularies import byte_level

VOCABULARY = byte_level()
LOGITS = torch.randn((3, VOCABULARY.size), generator=torch.Generator().manual_seed(0))
PROTOTYPES = Prototypes(LOGITS, Fitted("m@1", s0=0.5, k=9.0))


class Model:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, turns, *, max_tokens=32, hidden_layer=None, first_logits=0):
        self.calls += 1
        return [Probed("a cliff", logits=LOGITS if first_logits else None) for _ in turns]


def test_the_model_is_asked_once_for_steering_and_record():
    model = Model()
    given = context(VOCABULARY, probe=model)
    strategy = Ras(PROTOTYPES)
    made, record = strategy.prepare(given), strategy.record(given)
    assert model.calls == 2
    assert record["share"] == made.share
    assert json.loads(json.dumps(record)).keys() == {"share", "similarity", "prototypes"}
    assert record["prototypes"] == PROTOTYPES.id


def test_a_cap_stands_in_the_record():
    capped = Prototypes(LOGITS, Fitted("m@1", s0=0.5, k=9.0, cap=30.0))
    assert Ras(capped).record(context(VOCABULARY, probe=Model()))["cap"] == 30.0


def test_each_first_token_has_its_prototype():
    made = Ras(PROTOTYPES).prepare(context(VOCABULARY, probe=Model()))
    z = torch.randn((1, VOCABULARY.size), generator=torch.Generator().manual_seed(5))
    for n in range(3):
        assert not made.done([1] * n)
        got = made.adjust(step(z, [1] * n))
        assert torch.equal(got, blended(z[0], LOGITS[n], share=made.share))
    assert made.done([1, 1, 1])


def test_the_risk_of_its_own_judge_is_taken_as_it_is():
    model = Model()
    given = context(VOCABULARY, probe=model)
    judged = given.judgement.model_copy(
        update={"judge_id": f"ras:{PROTOTYPES.id}", "p_unsafe": 0.25}
    )
    object.__setattr__(given, "judgement", judged)
    strategy = Ras(PROTOTYPES)
    assert strategy.prepare(given).share == 0.25
    assert strategy.record(given) == {"share": 0.25, "prototypes": PROTOTYPES.id}
    assert model.calls == 0


def test_another_judges_probability_is_not():
    model = Model()
    given = context(VOCABULARY, probe=model)
    for name in ("same", "ras:other", f"ras:{PROTOTYPES.id}+cal:1"):
        given.notes.clear()
        judged = given.judgement.model_copy(update={"judge_id": name, "p_unsafe": 0.25})
        object.__setattr__(given, "judgement", judged)
        assert Ras(PROTOTYPES).prepare(given).share > 0.9
    assert model.calls == 6
