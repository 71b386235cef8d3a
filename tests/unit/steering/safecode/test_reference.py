"""Each quirk of the released code: what it does when on, and recipe ``paper`` when off."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safecode_guard.errors import ModelError, PolicyError
from safecode_guard.steering.safecode.guided import PaperSteering
from safecode_guard.steering.safecode.reference import (
    ReferenceQuirks,
    best_phrase,
    ends_guidance,
    only,
)
from safecode_guard.steering.safecode.refusals import RefusalLexicon
from tests.reference import steering as naive
from tests.unit.steering.contexts import context, safecode, step
from tests.unit.steering.vocabularies import byte_level, sentence_piece

VOCABULARY = byte_level()
LEXICON = RefusalLexicon.load(["en"])
NO_QUIRKS = ReferenceQuirks(
    **{f.name: False for f in fields(ReferenceQuirks) if f.default is True},
    later_temperature=None,
)


def strategy(
    label="unsafe",
    *,
    quirks=None,
    vocabulary=VOCABULARY,
    family="llava",
    seed=7,
    lexicon=LEXICON,
    **decoding,
):
    made = safecode(recipe="reference", lexicon=lexicon, quirks=quirks, **decoding)
    return made.prepare(context(vocabulary, label, family=family, seed=seed))


def two_views(seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((2, VOCABULARY.size), generator=generator) * scale


def token(text):
    (one,) = VOCABULARY.encode(text)
    return one


def test_without_quirks_it_is_the_paper():
    for label in ("safe", "unsafe"):
        paper = safecode(recipe="paper", lexicon=LEXICON).prepare(context(VOCABULARY, label))
        bare = strategy(label, quirks=NO_QUIRKS)
        for text in ("", "I", "I see"):
            so_far = VOCABULARY.encode(text)
            seen = step(two_views(len(so_far)), so_far)
            torch.testing.assert_close(bare.adjust(seen), paper.adjust(seen))
        assert bare.max_tokens is None


# -- unsafe -------------------------------------------------------------------------------------


def test_the_best_phrases_first_tokens_are_forced():
    forced, logits, so_far = strategy(), two_views(), []
    z_cd = naive.contrasted(logits[0].tolist(), logits[1].tolist(), 0.3, "none")
    p = naive.softmax(z_cd)
    spelled = {ph.text: VOCABULARY.encode(ph.text) for ph in LEXICON.phrases if ph.apologetic}
    best = max(spelled, key=lambda text: sum(p[i] for i in spelled[text]))
    while not forced.done(so_far):
        later = two_views(len(so_far)) if so_far else logits
        so_far.append(int(forced.adjust(step(later, so_far)).argmax()))
    assert len(so_far) == forced.steps
    expected = spelled[best][: forced.steps]
    assert so_far[: len(expected)] == expected


def test_after_the_phrases_end_the_model_goes_on():
    forced = strategy(guided_steps=40)
    logits = two_views()
    first = forced.adjust(step(logits))
    assert first.isfinite().sum() == 1
    assert torch.equal(forced.adjust(step(logits, range(39))), logits[0])


def test_apologies_are_preferred():
    lexicon = RefusalLexicon.load([], extra=["|Nope never", "I'm |sorry"])
    logits = torch.zeros(1, VOCABULARY.size)
    logits[0, VOCABULARY.encode("Nope never")] = 9.0
    for prefer, expected in ((True, "I'm sorry"), (False, "Nope never")):
        quirks = ReferenceQuirks(prefer_apologies=prefer)
        forced = strategy(lexicon=lexicon, quirks=quirks, alpha=0)
        got = forced.adjust(step(logits)).argmax()
        assert got == VOCABULARY.encode(expected)[0]


def test_without_any_apology_all_phrases_compete():
    lexicon = RefusalLexicon.load([], extra=["|Nope never"])
    got = strategy(lexicon=lexicon).adjust(step(two_views())).argmax()
    assert got == VOCABULARY.encode("Nope never")[0]


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=6, max_size=6))
def test_phrases_are_scored_by_the_sum_of_all_their_tokens(z):
    phrases = [(0, 1), (2, 3, 4), (5,)]
    p = naive.softmax(z)
    chosen = best_phrase(torch.tensor(z), torch.arange(6), phrases)
    scores = {phrase: sum(p[i] for i in phrase) for phrase in phrases}
    assert scores[tuple(chosen)] == pytest.approx(max(scores.values()), rel=1e-4)


def test_unforced_it_boosts_every_token_of_every_phrase():
    quirks = ReferenceQuirks(force_phrase=False)
    boosting = strategy(quirks=quirks)
    assert isinstance(boosting, PaperSteering)
    assert {token(","), token(" to"), token("I")} <= boosting.refusals
    fewer = strategy(quirks=ReferenceQuirks(force_phrase=False, every_phrase_token=False))
    assert token(" to") not in fewer.refusals
    assert boosting.max_tokens == 20


def test_phrases_are_written_without_lead_tokens():
    vocabulary = sentence_piece()
    forced = strategy(vocabulary=vocabulary)
    logits = torch.zeros(2, vocabulary.size)
    first = int(forced.adjust(step(logits)).argmax())
    assert vocabulary.decode([first]).strip()


# -- safe ---------------------------------------------------------------------------------------


def test_probabilities_of_refusal_tokens_are_scaled_and_alpha_is_halved():
    loosened = strategy("safe", lambda_supp=1.2)
    logits = two_views()
    z_cd = naive.contrasted(logits[0].tolist(), logits[1].tolist(), 0.15, "none")
    refusals = set(safecode(lexicon=LEXICON).trie(context(VOCABULARY)).tokens())
    expected = naive.scaled_probabilities(z_cd, refusals, 1.2)
    got = loosened.stages(step(logits)).steered.softmax(-1)
    torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-4, atol=1e-7)


def test_a_factor_of_zero_rules_refusals_out():
    loosened = strategy("safe", lambda_supp=2.0)
    got = loosened.stages(step(two_views())).steered.softmax(-1)
    assert got[token("I")] == 0
    assert not got.isnan().any()


def test_a_negative_probability_is_refused_before_any_turn():
    with pytest.raises(PolicyError, match=r"lambda_supp = 2\.5"):
        safecode(recipe="reference", lambda_supp=2.5)
    safecode(recipe="reference", lambda_supp=2.5, quirks=NO_QUIRKS)
    safecode(recipe="paper", lambda_supp=2.5)


def test_the_first_token_is_the_best_that_is_no_quote_mark():
    logits = two_views()
    logits[:, token('"')] = 90.0
    logits[:, token("The")] = 80.0
    assert strategy("safe").adjust(step(logits)).argmax() == token("The")
    quoting = strategy("safe", quirks=ReferenceQuirks(skip_leading_quote=False))
    assert quoting.adjust(step(logits)).argmax() == token('"')


def test_later_tokens_are_drawn_at_their_own_temperature():
    logits = torch.full((1, VOCABULARY.size), -torch.inf)
    a, b = token("The"), token(" see")
    logits[0, a], logits[0, b] = 0.0, 1.0
    drawn = [
        int(strategy("safe", alpha=0, seed=s).adjust(step(logits, [a])).argmax())
        for s in range(400)
    ]
    expected = naive.softmax([0.0, 1.0 / 0.8])[1]
    assert drawn.count(b) / 400 == pytest.approx(expected, abs=0.07)
    assert set(drawn) == {a, b}


def test_draws_depend_on_the_seed_and_the_step_alone():
    seen = step(two_views(scale=0.1), VOCABULARY.encode("A"))
    one, again, other = (strategy("safe", seed=s) for s in (1, 1, 2))
    first = one.adjust(seen)
    assert torch.equal(again.adjust(seen), first)
    assert torch.equal(one.adjust(seen), first)
    assert not torch.equal(other.adjust(seen), first)


def test_without_its_own_draw_the_caller_samples():
    quirks = ReferenceQuirks(later_temperature=None, greedy_first_token=False)
    loosened = strategy("safe", quirks=quirks)
    for so_far in ([], [5]):
        assert loosened.adjust(step(two_views(), so_far)).isfinite().all()


@pytest.mark.parametrize(
    ("text", "over"),
    [
        ("", False),
        ("The", False),
        ("The dog", True),
        ("I see", False),
        ("to the", False),
        (" The  dog", True),
        ('"The dog', False),
        ("Élan vital", True),
    ],
)
def test_when_guidance_ends(text, over):
    assert ends_guidance(text) is over


def test_guidance_ends_early():
    so_far = VOCABULARY.encode("You can see")
    assert len(so_far) < 5
    assert [strategy("safe").done(so_far[:n]) for n in range(3)] == [False, False, True]
    stubborn = strategy("safe", quirks=ReferenceQuirks(end_early=False))
    assert not stubborn.done(so_far)
    assert stubborn.done([5] * 5)


def test_guidance_that_has_ended_does_not_begin_again():
    """A byte that completes no character turns the bytes before it into marks as well."""
    vocabulary = sentence_piece()
    table = vocabulary._tokenizer.get_vocab()
    so_far = [table[f"<0x{byte:02X}>"] for byte in (*b"It i", 0xC3)]
    texts = [vocabulary.decode(so_far[:n]) for n in (4, 5)]
    assert [ends_guidance(text) for text in texts] == [True, False]
    loosened = strategy("safe", vocabulary=vocabulary, guided_steps=9)
    assert loosened.done(so_far[:4])
    assert loosened.done(so_far)


def test_candidates_missing_a_forced_token_are_refused():
    with pytest.raises(ModelError, match="whole vocabulary"):
        only(5, torch.tensor([1, 2, 3]))


# -- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "label", "cap"),
    [
        ("llava_next", "unsafe", 20),
        ("qwen2_5_vl", "unsafe", 30),
        ("internvl", "unsafe", 20),
        ("qwen2_5_vl", "safe", 256),
    ],
)
def test_length_caps(family, label, cap):
    assert strategy(label, family=family).max_tokens == cap
    uncapped = strategy(label, family=family, quirks=ReferenceQuirks(length_caps=False))
    assert uncapped.max_tokens is None
