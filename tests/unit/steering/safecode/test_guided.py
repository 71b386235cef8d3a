"""Recipes ``paper`` and ``guarded``, step by step, and the experiment behind the root's weight."""

from __future__ import annotations

import math

import pytest
import torch

from safecode_guard.steering.safecode.guided import GuardedSteering, PaperSteering
from tests.reference import steering as naive
from tests.unit.steering.contexts import context, safecode, step
from tests.unit.steering.vocabularies import byte_level

VOCABULARY = byte_level()


def steering(label="unsafe", **decoding):
    return safecode(**decoding).prepare(context(VOCABULARY, label))


def two_views(seed=0):
    return torch.randn((2, VOCABULARY.size), generator=torch.Generator().manual_seed(seed)) * 3


def token(text):
    (one,) = VOCABULARY.encode(text)
    return one


def moved(strategy, so_far, logits):
    """Return the text of the tokens that modulation moved, and by how much."""
    stages = strategy.stages(step(logits, so_far))
    by = stages.modulated - stages.contrasted
    return {VOCABULARY.decode([i]): round(by[i].item(), 4) for i in by.nonzero().flatten().tolist()}


@pytest.mark.parametrize("label", ["safe", "unsafe"])
@pytest.mark.parametrize("recipe", ["paper", "guarded"])
def test_a_step_is_the_formula(recipe, label):
    strategy = steering(label, recipe=recipe, lambda_boost=2.0, lambda_supp=1.5, top_k=300)
    logits, so_far = two_views(), VOCABULARY.encode("I")
    used = strategy.record
    shares = strategy.shares(so_far)
    amount = 2.0 if label == "unsafe" else -1.5
    push = [amount * shares.get(i, 0.0) for i in range(VOCABULARY.size)]
    expected = naive.steered(
        logits[0].tolist(),
        logits[1].tolist(),
        push,
        alpha=used.alpha,
        normalise=used.normalise,
        top_k=used.top_k,
        plausibility=used.plausibility,
    )
    got = strategy.adjust(step(logits, so_far))
    torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert any(push)


def test_the_papers_recipe_is_the_papers_equations():
    strategy = steering(recipe="paper")
    assert isinstance(strategy, PaperSteering)
    logits = two_views()
    z_cd = logits[0] - 0.3 * logits[1]
    expected = z_cd.clone()
    for i in z_cd.topk(20).indices.tolist():
        expected[i] += 1.0 if i in strategy.refusals else 0.0
    torch.testing.assert_close(strategy.adjust(step(logits)), expected)
    assert strategy.max_tokens is None


def test_the_flat_set_pushes_an_ordinary_i_and_the_trie_does_not():
    logits, so_far = two_views(), VOCABULARY.encode("You can see that")
    flat = moved(steering(recipe="paper", top_k=VOCABULARY.size), so_far, logits)
    trie = moved(steering(recipe="guarded", top_k=VOCABULARY.size), so_far, logits)
    assert flat["I"] == 1.0
    assert trie == {}


def test_only_refusal_tokens_within_the_top_k_move():
    strategy = steering("safe", top_k=10, plausibility=0)
    logits = two_views()
    logits[:, token("I")] = 20.0
    logits[:, token("Sorry")] = -20.0
    by = moved(strategy, [], logits)
    assert by.pop("I") == -0.5
    top = strategy.stages(step(logits)).contrasted.topk(10).indices.tolist()
    assert set(by) <= {VOCABULARY.decode([i]) for i in top}
    assert "Sorry" not in by


def test_nothing_to_do_is_plain_generate_bit_for_bit():
    strategy = steering(alpha=0, lambda_boost=0, plausibility=0)
    logits = two_views()[:1]
    got = strategy.adjust(step(logits))
    assert strategy.second is None
    assert got.numpy().tobytes() == logits[0].numpy().tobytes()


def test_contrast_alone_and_modulation_alone():
    logits = two_views()
    contrast_only = steering(lambda_boost=0, plausibility=0)
    stages = contrast_only.stages(step(logits))
    assert torch.equal(stages.contrasted, stages.steered)
    assert not torch.equal(stages.contrasted, logits[0])
    modulation_only = steering(alpha=0, plausibility=0)
    stages = modulation_only.stages(step(logits[:1]))
    assert modulation_only.second is None
    assert torch.equal(stages.contrasted, logits[0])
    assert not torch.equal(stages.contrasted, stages.steered)


def test_the_scale_control_explains_the_papers_gain_where_views_agree():
    """(1 - a) z + lambda on R has the ranking of z + lambda / (1 - a) on R."""
    logits = two_views()[:1].repeat(2, 1)
    paper = steering(recipe="paper", top_k=VOCABULARY.size).adjust(step(logits))
    control = steering(recipe="paper", top_k=VOCABULARY.size, alpha=0, lambda_boost=1 / 0.7)
    got = control.adjust(step(logits[:1]))
    torch.testing.assert_close(paper, 0.7 * got, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recipe", ["paper", "guarded"])
def test_served_candidates_get_what_the_whole_vocabulary_gets(recipe):
    """A server gives some candidates, in its own order: they are steered the same."""
    logits, so_far = two_views(), VOCABULARY.encode("I")
    strategy = steering(recipe=recipe, top_k=20)
    whole = strategy.adjust(step(logits, so_far))
    candidates = torch.cat(
        [(logits[0] - 0.3 * logits[1]).topk(200).indices, logits[0].topk(200)[1]]
    )
    candidates = candidates.unique()[torch.randperm(candidates.unique().numel())]
    some = strategy.adjust(step(logits[:, candidates], so_far, ids=candidates))
    torch.testing.assert_close(some, whole[candidates])


def test_a_step_changes_nothing_it_was_given():
    logits = two_views()
    before = logits.clone()
    steering().adjust(step(logits))
    assert torch.equal(logits, before)


# -- the root: how much of lambda an ordinary "I" should carry ---------------------------------

OPENINGS = {"": {"I": 0.4, "The": 0.6}, "I": {" cannot": 0.3, " see": 0.7}}


def pushes(model, label, *, root_weight=0.5, strength=1.0):
    """Return what the trie adds to the logits of a toy model, by text so far."""
    strategy = steering(
        label,
        alpha=0,
        plausibility=0,
        root_weight=root_weight,
        lambda_boost=strength,
        lambda_supp=strength,
    )
    assert isinstance(strategy, GuardedSteering)
    return {
        text: {
            word: strategy.record.push
            * strategy.shares(VOCABULARY.encode(text)).get(token(word), 0.0)
            for word in model[text]
        }
        for text in model
    }


def texts(model, label, **options):
    """Return the probabilities of a toy model's texts under the trie's pushes."""
    return naive.sequences(model, pushes(model, label, **options))


def greedy(model, label, **options):
    """Return the toy model's greedy text under the trie's pushes."""
    return naive.greedy(model, pushes(model, label, **options))


def test_suppression_spares_the_ordinary_i():
    before = naive.sequences(OPENINGS, {})
    held_back = texts(OPENINGS, "safe", root_weight=0.5)
    full = texts(OPENINGS, "safe", root_weight=1.0)
    assert held_back["I cannot"] < full["I cannot"] < before["I cannot"] / 4
    assert held_back["I see"] == pytest.approx(before["I see"], abs=0.02)
    assert full["I see"] < 0.65 * before["I see"]


def test_suppression_does_not_turn_a_clear_i_see_into_something_else():
    model = {"": {"I": 0.6, "The": 0.4}, "I": {" cannot": 0.05, " see": 0.95}}
    assert greedy(model, "safe", root_weight=0.25) == "I see"
    assert greedy(model, "safe", root_weight=1.0) == "The"


def test_suppression_still_works_where_every_i_refuses():
    """Why stems are not left alone altogether: behind such an "I" there is no way out."""
    model = {"": {"I": 0.55, "The": 0.45}, "I": {" cannot": 0.97, " see": 0.03}}
    assert greedy(model, "safe", root_weight=0.0) == "I cannot"
    assert greedy(model, "safe", root_weight=0.5) == "The"
    half, none = (texts(model, "safe", root_weight=w)["I cannot"] for w in (0.5, 0.0))
    assert half < 0.9 * none


@pytest.mark.parametrize("root_weight", [0.0, 0.5, 1.0])
def test_boosting_works_where_every_refusal_begins_with_i(root_weight):
    """The root's weight is for suppression: an unsafe verdict can afford an "I" too many."""
    before = naive.sequences(OPENINGS, {})
    after = texts(OPENINGS, "unsafe", root_weight=root_weight)
    assert after["I cannot"] > 2.5 * before["I cannot"]
    strong = texts(OPENINGS, "unsafe", root_weight=root_weight, strength=6.0)
    assert strong["I cannot"] > 0.99


def test_without_the_root_a_greedy_answer_would_never_get_to_refuse():
    logits = torch.full((1, VOCABULARY.size), -20.0)
    logits[0, token("The")], logits[0, token("I")] = math.log(0.6), math.log(0.4)
    got = steering(alpha=0).adjust(step(logits))
    assert got.argmax() == token("I")


# -- how long ----------------------------------------------------------------------------------


def test_it_is_guided_until_the_refusal_is_sealed():
    made = steering(guided_steps=2, most_steps=9)
    refusal = VOCABULARY.encode("I'm afraid that's not something I can")
    over = [made.done(refusal[:k]) for k in range(len(refusal) + 1)]
    assert over == [False] * min(9, len(refusal)) + [True] * (
        len(refusal) + 1 - min(9, len(refusal))
    )
    ordinary = VOCABULARY.encode("The dog")
    assert [made.done(ordinary[:k]) for k in (0, 1, 2)] == [False, False, True]
    turned = [*VOCABULARY.encode("I'm afraid"), *ordinary]
    assert made.done(turned)


def test_what_stands_before_the_first_word_is_not_counted():
    made = steering(guided_steps=1)
    lead = VOCABULARY.encode("**Answer:** ")
    assert not any(made.done(lead[:k]) for k in range(len(lead) + 1))
    assert made.done([*lead, *VOCABULARY.encode("The")])


def test_the_papers_recipe_counts_every_token():
    made = steering(recipe="paper", most_steps=9)
    assert made.done(VOCABULARY.encode("I'm afraid that's not something")[:5])
    assert made.done(VOCABULARY.encode("**" * 5)[:5])
