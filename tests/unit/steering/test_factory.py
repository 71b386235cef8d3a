from __future__ import annotations

import pytest

from safecode_guard.errors import PolicyError
from safecode_guard.policy import DecodingPolicy
from safecode_guard.steering.factory import BUILT_IN, make_strategy
from safecode_guard.steering.plain import Plain
from safecode_guard.steering.safecode.strategy import SafeCoDe
from safecode_guard.steering.verdict_prompt import VerdictPrompt


class Own:
    id = "own-1"

    def prepare(self, context):
        return None


def test_every_built_in_is_made_and_carries_its_name():
    kinds = {"plain": Plain, "safecode": SafeCoDe, "verdict_prompt": VerdictPrompt}
    assert set(kinds) == set(BUILT_IN)
    for name, kind in kinds.items():
        made = make_strategy(DecodingPolicy(strategy=name))
        assert isinstance(made, kind)
        assert made.id == name


def test_languages_and_phrases_come_from_the_policy():
    decoding = DecodingPolicy(refusal_languages=("de",), refusal_phrases=("Nö, lieber nicht",))
    lexicon = make_strategy(decoding).lexicon
    assert lexicon.is_refusal("Nö, lieber nicht.")
    assert lexicon.is_refusal("Es tut mir leid, aber das geht nicht.")
    assert not lexicon.is_refusal("I'm sorry, but I can't.")


def test_an_unknown_name_is_refused():
    with pytest.raises(PolicyError, match=r"'saefcode'.*'safecode'"):
        make_strategy(DecodingPolicy(strategy="saefcode"))


def test_an_unknown_language_is_refused():
    with pytest.raises(PolicyError, match="xx"):
        make_strategy(DecodingPolicy(refusal_languages=("xx",)))


@pytest.mark.parametrize("name", ["own-1", "safecode"])
def test_an_own_object_is_taken(name):
    own = Own()
    assert make_strategy(DecodingPolicy(strategy=name), own) is own


def test_an_own_object_must_not_contradict_the_policy():
    with pytest.raises(PolicyError, match=r"'plain'.*'own-1'"):
        make_strategy(DecodingPolicy(strategy="plain"), Own())


@pytest.mark.parametrize("thing", [object(), type("NoId", (), {"prepare": lambda s, c: None})()])
def test_an_object_that_is_no_strategy_is_refused(thing):
    with pytest.raises(PolicyError, match="no strategy"):
        make_strategy(DecodingPolicy(), thing)
