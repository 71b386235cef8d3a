"""What the model is asked for the risk of a turn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from safecode_guard.errors import ModelError
from safecode_guard.models.probing import Probed
from safecode_guard.risk.measure import risks
from safecode_guard.risk.prompts import CONTEXT, SAFETY
from safecode_guard.risk.prototypes import Fitted, Prototypes
from tests.unit.steering.contexts import PICTURE, WORDS

LIKE = torch.eye(3, 8) * 9
PROTOTYPES = Prototypes(LIKE, Fitted("m@1", s0=0.5, k=9.0))


class Model:
    """Answers every question alike, and keeps what it was asked."""

    def __init__(self, logits: torch.Tensor | None = LIKE, says: str = " A cliff. ") -> None:
        self.logits, self.says = logits, says
        self.asked: list = []

    def __call__(self, turns, *, max_tokens=32, hidden_layer=None, first_logits=0):
        self.asked += [(turn, max_tokens, first_logits) for turn in turns]
        return [Probed(self.says, logits=self.logits if first_logits else None) for _ in turns]


def test_a_picture_is_described_and_then_the_request_is_asked_cautiously():
    model = Model()
    (risk,) = risks(model, [PICTURE], PROTOTYPES)
    (first, longest, _), (second, tokens, logits) = model.asked
    assert first.query == CONTEXT
    assert (longest, tokens, logits) == (40, 3, 3)
    assert second.messages[0].text == SAFETY
    assert second.query == f"What the picture shows: A cliff.\n\nThe request: {PICTURE.query}"
    assert second.images == first.images == PICTURE.images
    assert risk.context == "A cliff."
    assert risk.similarity == pytest.approx(1)
    assert risk.certainty == pytest.approx(1 / (1 + 2.718281828 ** (-9 * 0.5)))


def test_words_alone_have_no_context():
    model = Model()
    risks(model, [WORDS], PROTOTYPES)
    ((asked, _, _),) = model.asked
    assert asked.query == WORDS.query


def test_turns_keep_their_places():
    model = Model()
    assert [risk.context for risk in risks(model, [WORDS, PICTURE], PROTOTYPES)] == ["", "A cliff."]


def test_an_answer_that_ends_sooner_is_compared_as_far_as_it_goes():
    (risk,) = risks(Model(LIKE[:1]), [WORDS], PROTOTYPES)
    assert risk.similarity == pytest.approx(1)


@pytest.mark.parametrize("logits", [None, torch.zeros(3, 9), torch.full((3, 8), torch.nan)])
def test_logits_of_another_kind_are_an_error_and_no_risk(logits):
    with pytest.raises(ModelError):
        risks(Model(logits), [WORDS], PROTOTYPES)


def test_what_is_unlike_a_refusal_is_safe():
    other = Model(torch.eye(8)[5:].flip(0) * 9)
    (risk,) = risks(other, [WORDS], PROTOTYPES)
    assert risk.similarity < 0.1
    assert risk.certainty < 0.05
    steep = replace(PROTOTYPES, fitted=replace(PROTOTYPES.fitted, s0=0.0))
    assert risks(other, [WORDS], steep)[0].certainty > risk.certainty
