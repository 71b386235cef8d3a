from __future__ import annotations

import pytest
import torch

from safecode_guard.errors import PolicyError
from safecode_guard.steering.safecode.guided import GuardedSteering, PaperSteering
from safecode_guard.steering.safecode.reference import ForcedRefusal, LoosenedAnswer
from safecode_guard.steering.safecode.refusals import RefusalLexicon
from safecode_guard.steering.safecode.strategy import SafeCoDe, push_of
from tests.unit.steering.contexts import context
from tests.unit.steering.vocabularies import byte_level, sentence_piece

VOCABULARY = byte_level()
STRATEGY = SafeCoDe()


@pytest.mark.parametrize(
    ("mode", "label", "kind"),
    [
        ("paper", "safe", PaperSteering),
        ("paper", "unsafe", PaperSteering),
        ("guarded", "safe", GuardedSteering),
        ("guarded", "unsafe", GuardedSteering),
        ("reference", "safe", LoosenedAnswer),
        ("reference", "unsafe", ForcedRefusal),
    ],
)
def test_each_mode_has_its_steering(mode, label, kind):
    strategy = STRATEGY.prepare(context(VOCABULARY, label, mode=mode))
    assert isinstance(strategy, kind)
    assert (strategy.steps, strategy.views) == (5, 2)


@pytest.mark.parametrize("mode", ["paper", "guarded", "reference"])
def test_no_guided_step_is_no_steering(mode):
    assert STRATEGY.prepare(context(VOCABULARY, guided_steps=0, mode=mode)) is None


@pytest.mark.parametrize("mode", ["paper", "guarded"])
def test_the_callers_token_budget_is_left_alone(mode):
    for label in ("safe", "unsafe"):
        assert STRATEGY.prepare(context(VOCABULARY, label, mode=mode)).max_tokens is None


@pytest.mark.parametrize(
    ("label", "certainty", "power", "expected"),
    [
        ("unsafe", 1.0, 1.0, 2.0),
        ("unsafe", 0.5, 1.0, 1.0),
        ("unsafe", 0.5, 2.0, 0.5),
        ("unsafe", 0.5, 0.0, 2.0),
        ("safe", 0.5, 1.0, -1.5),
        ("safe", 0.0, 1.0, -3.0),  # a judge that gives labels alone
        ("unsafe", 0.0, 1.0, 2.0),
        (None, 0.0, 1.0, 2.0),  # the check failed: the whole boost
        ("undecided", 0.0, 1.0, 0.0),
        ("undecided", 0.0, 0.0, 2.0),
    ],
)
def test_the_push(label, certainty, power, expected):
    given = context(
        VOCABULARY,
        label,
        certainty=certainty,
        certainty_power=power,
        lambda_boost=2.0,
        lambda_supp=3.0,
    )
    assert push_of(given) == pytest.approx(expected)


@pytest.mark.parametrize("mode", ["paper", "guarded", "reference"])
@pytest.mark.parametrize("label", ["unsafe", "undecided", None])
def test_refusals_are_never_suppressed_without_a_verdict_of_safe(mode, label):
    """The released code suppressed them for any text but "unsafe", an error message too."""
    given = context(VOCABULARY, label, mode=mode)
    object.__setattr__(given, "direction", "suppress")
    with pytest.raises(PolicyError, match="'safe' only"):
        STRATEGY.prepare(given)


@pytest.mark.parametrize("mode", ["paper", "guarded"])
@pytest.mark.parametrize("label", ["unsafe", "undecided", None])
def test_everything_but_safe_boosts(mode, label):
    strategy = STRATEGY.prepare(context(VOCABULARY, label, mode=mode, certainty=0.4))
    assert strategy.push > 0


def test_a_contradictory_contrast_is_refused_before_anything_is_computed():
    with pytest.raises(PolicyError, match="alpha = 1 "):
        STRATEGY.prepare(context(VOCABULARY, alpha=1.0, normalise="rescale"))


def test_a_trie_is_built_once_per_vocabulary():
    strategy = SafeCoDe()
    first = strategy.trie(VOCABULARY)
    assert strategy.trie(VOCABULARY) is first
    assert strategy.trie(sentence_piece()) is not first


def test_turns_do_not_disturb_each_other():
    """The released code kept its state in globals; here interleaved turns are as if alone."""
    logits = torch.randn((2, VOCABULARY.size), generator=torch.Generator().manual_seed(1)) * 4
    ids = torch.arange(VOCABULARY.size)

    def answer(strategies, turns):
        texts = {i: [] for i in range(len(strategies))}
        for i in turns:
            so_far = torch.tensor(texts[i], dtype=torch.long)
            step = len(texts[i])
            texts[i].append(int(strategies[i].adjust(step, logits, ids, so_far).argmax()))
        return texts

    def prepared():
        return [
            STRATEGY.prepare(context(VOCABULARY, label, mode=mode, seed=i))
            for i, (label, mode) in enumerate(
                [("unsafe", "guarded"), ("safe", "reference"), ("unsafe", "reference")]
            )
        ]

    alone = answer(prepared(), [0] * 4 + [1] * 4 + [2] * 4)
    assert answer(prepared(), [2, 0, 1] * 4) == alone


def test_own_phrases_are_pushed():
    lexicon = RefusalLexicon.load(["en"], extra=["Nay, |never"])
    trie = SafeCoDe(lexicon=lexicon).trie(VOCABULARY)
    assert VOCABULARY.encode("Nay, never")[0] in trie.shares([])
