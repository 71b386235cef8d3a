"""The baseline AdaShield-S."""

from __future__ import annotations

from safecode_guard.steering.baselines.adashield import DEFENCE, AdaShieldS
from tests.unit.steering.contexts import PICTURE, context
from tests.unit.steering.vocabularies import byte_level


def test_the_prompt_is_the_same_whatever_the_judge_said():
    strategy = AdaShieldS()
    for label in ("safe", "unsafe", "undecided"):
        given = context(byte_level(), label)
        edited = strategy.prepare(given).edit(PICTURE)
        assert edited.messages[0].text == DEFENCE
        assert edited.messages[1:] == PICTURE.messages
        assert strategy.record(given) == strategy.record(context(byte_level()))


def test_the_record_tells_wordings_apart(monkeypatch):
    before = AdaShieldS().record(context(byte_level()))
    module = "safecode_guard.steering.baselines.adashield.DEFENCE"
    monkeypatch.setattr(module, "Look at the picture first.")
    assert AdaShieldS().record(context(byte_level())) != before
