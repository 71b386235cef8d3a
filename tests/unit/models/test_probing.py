"""Asking a model something of one's own."""

from __future__ import annotations

import pytest
import torch

from safecode_guard.errors import LogitsUnavailable
from safecode_guard.models.probing import probe
from safecode_guard.testing import ScriptedServer, ScriptedVLM
from tests.unit.pipeline.serving import turn


def engine() -> ScriptedVLM:
    return ScriptedVLM(lambda scene: {scene.question: 0.5, "x": 0.0})


@pytest.mark.parametrize("together", [False, True])
def test_logits_are_those_that_the_tokens_were_chosen_from(together: bool) -> None:
    turns = [turn("one"), turn("two")]
    plain = probe(engine(), turns, max_tokens=4, together=together)
    seen = probe(engine(), turns, max_tokens=4, first_logits=2, together=together)
    assert [answer.tokens for answer in seen] == [answer.tokens for answer in plain]
    assert [answer.text for answer in seen] == ["one", "two"]
    assert all(answer.logits is None for answer in plain)
    for answer in seen:
        assert answer.logits is not None
        assert answer.logits.shape == (2, engine().vocabulary.size)
        assert answer.logits.dtype == torch.float32
        assert tuple(answer.logits.argmax(-1).tolist()) == answer.tokens[:2]


def test_one_session_each_or_one_for_all() -> None:
    turns = [turn("one"), turn("two")]
    alone, together = engine(), engine()
    probe(alone, turns, max_tokens=1)
    probe(together, turns, max_tokens=1, together=True)
    assert [call[1] for call in alone.calls if call[0] == "prefill"] == [1, 1]
    assert [call[1] for call in together.calls if call[0] == "prefill"] == [2]


def test_a_model_that_keeps_its_logits_is_not_asked_for_them() -> None:
    with pytest.raises(LogitsUnavailable, match="to itself"):
        probe(ScriptedServer(engine()), [turn()], first_logits=3)


def test_states_and_logits_are_not_asked_for_at_once() -> None:
    with pytest.raises(ValueError, match="not for both"):
        probe(engine(), [turn()], hidden_layer=-1, first_logits=3)
