from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from safecode_guard.errors import PolicyError
from safecode_guard.models.protocol import Needs
from safecode_guard.steering.safecode.guided import GuardedSteering, GuidedSteps, PaperSteering
from safecode_guard.steering.safecode.reference import (
    ForcedRefusal,
    LoosenedAnswer,
    ReferenceQuirks,
)
from safecode_guard.steering.safecode.refusals import RefusalLexicon
from safecode_guard.steering.safecode.strategy import push_of
from safecode_guard.steering.safecode.views import second_views
from safecode_guard.turns.turn import TextPart, Turn, TurnMessage
from tests.unit.steering.contexts import PICTURE, WORDS, context, safecode, step
from tests.unit.steering.vocabularies import byte_level, sentence_piece

VOCABULARY = byte_level()
RECIPES = ("paper", "guarded", "reference")


@pytest.mark.parametrize(
    ("recipe", "label", "kind"),
    [
        ("paper", "safe", PaperSteering),
        ("paper", "unsafe", PaperSteering),
        ("guarded", "safe", GuardedSteering),
        ("guarded", "unsafe", GuardedSteering),
        ("reference", "safe", LoosenedAnswer),
        ("reference", "unsafe", ForcedRefusal),
    ],
)
def test_each_recipe_has_its_steering(recipe, label, kind):
    made = safecode(recipe=recipe).prepare(context(VOCABULARY, label))
    assert isinstance(made, kind)
    assert made.steps == 5


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_guided_step_is_no_steering(recipe):
    strategy = safecode(guided_steps=0, recipe=recipe)
    assert strategy.prepare(context(VOCABULARY)) is None
    assert strategy.record(context(VOCABULARY)) == {}


def test_two_views_are_needed_unless_alpha_is_zero():
    assert safecode().needs == Needs(views=2)
    assert safecode(alpha=0).needs == Needs(views=1)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("label", ["safe", "unsafe"])
def test_the_second_view_is_made_for_turns_with_pictures(recipe, label):
    strategy = safecode(recipe=recipe)
    given = context(VOCABULARY, label, seed=11)
    expected = second_views(
        PICTURE,
        parameters=strategy.parameters,
        seed=11,
        working_size=given.working_size,
        keeps_image_size=False,
    )
    second = strategy.prepare(given).second
    assert [p.tobytes() for p in second.pixels] == [p.tobytes() for p in expected.pixels]
    assert second.messages == PICTURE.messages
    assert strategy.prepare(context(VOCABULARY, label, turn=WORDS)).second is None
    assert safecode(recipe=recipe, alpha=0).prepare(given).second is None


@pytest.mark.parametrize(
    ("label", "certainty", "contrasted"),
    [
        ("unsafe", 0.89, True),
        ("unsafe", 0.9, False),
        ("safe", 0.95, False),
        ("undecided", 1.0, True),
        (None, 1.0, True),
    ],
)
def test_certain_verdicts_are_not_contrasted(label, certainty, contrasted):
    """As with alpha 0, in the record, in the views and in every logit."""
    adaptive = safecode(contrast_below=0.9, certainty_power=0.0)
    given = context(VOCABULARY, label, certainty=certainty)
    as_usual = safecode(certainty_power=0.0, **({} if contrasted else {"alpha": 0.0}))
    assert adaptive.record(given) == as_usual.record(given)
    made, wanted = adaptive.prepare(given), as_usual.prepare(given)
    assert (made.second is not None) is contrasted
    logits = torch.randn((2, VOCABULARY.size), generator=torch.Generator().manual_seed(3)) * 4
    views = step(logits if contrasted else logits[:1])
    assert torch.equal(made.adjust(views), wanted.adjust(views))


def test_one_contrasts_whatever_the_certainty():
    """What switches it off where a model's record has a bound."""
    given = context(VOCABULARY, "unsafe", certainty=1.0)
    assert safecode(contrast_below=1.0).prepare(given).second is not None
    assert safecode(contrast_below=0.99).prepare(given).second is None


@pytest.mark.parametrize("recipe", ["paper", "guarded"])
def test_words_alone_are_not_contrasted(recipe):
    both = torch.randn((2, VOCABULARY.size), generator=torch.Generator().manual_seed(2))
    words = safecode(recipe=recipe).prepare(context(VOCABULARY, turn=WORDS))
    alone = safecode(recipe=recipe, alpha=0).prepare(context(VOCABULARY))
    assert torch.equal(words.adjust(step(both)), alone.adjust(step(both[:1])))


def test_without_a_push_no_phrase_has_to_be_written():
    lexicon = RefusalLexicon.load([], extra=["\N{SNOWMAN}"])
    undecided = context(VOCABULARY, "undecided", certainty=0.0)
    made = safecode(lexicon=lexicon).prepare(undecided)
    assert type(made) is GuidedSteps
    assert made.record.alpha == 0.3


@pytest.mark.parametrize("recipe", ["paper", "guarded"])
def test_the_callers_token_budget_is_left_alone(recipe):
    for label in ("safe", "unsafe"):
        made = safecode(recipe=recipe).prepare(context(VOCABULARY, label))
        assert made.max_tokens is None


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
    strategy = safecode(certainty_power=power, lambda_boost=2.0, lambda_supp=3.0)
    given = context(VOCABULARY, label, certainty=certainty)
    assert push_of(given, strategy.parameters) == pytest.approx(expected)
    assert strategy.record(given).get("push", 0) == pytest.approx(expected)


@pytest.mark.parametrize("recipe", ["paper", "guarded"])
@pytest.mark.parametrize("label", ["safe", "unsafe"])
def test_a_second_answer_differs_in_its_push_alone(recipe, label):
    strategy, given = safecode(recipe=recipe), context(VOCABULARY, label, certainty=0.5)
    first = dict(strategy.record(given))
    second = dict(strategy.record(replace(given, insistence=4.0)))
    assert second.pop("push") == pytest.approx(4 * first.pop("push"))
    assert second == first


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("label", ["unsafe", "undecided", None])
def test_refusals_are_never_suppressed_without_a_verdict_of_safe(recipe, label):
    """The released code suppressed them for any text but "unsafe", an error message too."""
    given = context(VOCABULARY, label)
    object.__setattr__(given, "direction", "suppress")
    with pytest.raises(PolicyError, match="'safe' only"):
        safecode(recipe=recipe).prepare(given)
    with pytest.raises(PolicyError, match="'safe' only"):
        safecode(recipe=recipe).record(given)


@pytest.mark.parametrize("recipe", ["paper", "guarded"])
@pytest.mark.parametrize("label", ["unsafe", "undecided", None])
def test_everything_but_safe_boosts(recipe, label):
    made = safecode(recipe=recipe).prepare(context(VOCABULARY, label, certainty=0.4))
    assert made.record.push > 0


def test_a_contradictory_contrast_is_refused_before_any_turn():
    with pytest.raises(PolicyError, match="alpha = 1 "):
        safecode(alpha=1.0, normalise="rescale")


def test_a_trie_is_built_once_per_vocabulary():
    strategy = safecode()
    first = strategy.trie(context(VOCABULARY))
    assert strategy.trie(context(VOCABULARY, "safe")) is first
    assert strategy.trie(context(sentence_piece())) is not first


def test_turns_do_not_disturb_each_other():
    """The released code kept its state in globals; here interleaved turns are as if alone."""
    logits = torch.randn((2, VOCABULARY.size), generator=torch.Generator().manual_seed(1)) * 4

    def answer(strategies, turns):
        texts = {i: [] for i in range(len(strategies))}
        for i in turns:
            if not strategies[i].done(texts[i]):
                texts[i].append(int(strategies[i].adjust(step(logits, texts[i])).argmax()))
        return texts

    def prepared():
        return [
            safecode(recipe=recipe).prepare(context(VOCABULARY, label, seed=i))
            for i, (label, recipe) in enumerate(
                [("unsafe", "guarded"), ("safe", "reference"), ("unsafe", "reference")]
            )
        ]

    alone = answer(prepared(), [0] * 4 + [1] * 4 + [2] * 4)
    assert answer(prepared(), [2, 0, 1] * 4) == alone


def test_own_phrases_are_pushed():
    lexicon = RefusalLexicon.load(["en"], extra=["I |never shall"])
    trie = safecode(lexicon=lexicon).trie(context(VOCABULARY))
    i, never, *_ = VOCABULARY.encode("I never shall")
    assert never in trie.shares([i])


# -- the record ---------------------------------------------------------------------------------

CONTRAST = {
    "alpha": 0.3,
    "normalise": "rescale",
    "reference_view": "noise",
    "sigma": 0.1,
    "noise_order": "after_resize",
    "seed": 7,
}
ENGLISH = {"languages": ["en"], "digest": RefusalLexicon.load(["en"]).digest}
"""Of the request."""
EVERY_LANGUAGE = {
    "languages": ["en", "de", "fr", "es", "zh"],
    "digest": RefusalLexicon.load().digest,
}


def record(label="unsafe", *, certainty=1.0, turn=PICTURE, quirks=None, **decoding):
    """Return the record of a turn, after it has been written as JSON."""
    given = context(VOCABULARY, label, certainty=certainty, turn=turn, family="qwen2_5_vl")
    text = json.dumps(safecode(quirks=quirks, **decoding).record(given), allow_nan=False)
    return json.loads(text)


def test_the_record_of_a_boost():
    assert record(certainty=0.5) == CONTRAST | {
        "recipe": "guarded",
        "direction": "boost",
        "steps": 5,
        "push": 0.5,
        "top_k": 20,
        "most_steps": 16,
        "reasoning": "skip",
        "plausibility": 0.1,
        "lexicon": ENGLISH,
    }


def test_the_record_of_a_suppression():
    assert record("safe", recipe="paper") == CONTRAST | {
        "recipe": "paper",
        "direction": "suppress",
        "steps": 5,
        "normalise": "none",
        "noise_order": "before_resize",
        "push": -1.0,
        "top_k": 20,
        "lexicon": EVERY_LANGUAGE,
    }
    assert record("safe")["root_weight"] == 0.5
    assert "root_weight" not in record("unsafe")


@pytest.mark.parametrize(
    ("used", "without"),
    [
        (record(alpha=0), CONTRAST),
        (record(turn=WORDS), CONTRAST),
        (record(reference_view="grey"), {"sigma", "noise_order", "seed"}),
        (record("undecided", certainty=0.0), {"push", "top_k", "root_weight", "lexicon"}),
        (record(lambda_boost=0), {"push", "top_k", "root_weight", "lexicon"}),
        (record(plausibility=0), {"plausibility"}),
        (record(), {"lambda_boost", "lambda_supp", "certainty_power", "quirks", "max_tokens"}),
        (record(recipe="reference"), {"push", "top_k", "root_weight", "plausibility"}),
    ],
)
def test_nothing_is_written_that_was_not_used(used, without):
    assert set(without).isdisjoint(used)


def test_what_a_quirk_does_to_a_number_is_in_the_number():
    forced = record(recipe="reference")
    assert forced["quirks"] == ["force_phrase", "prefer_apologies"]
    assert (forced["alpha"], forced["max_tokens"]) == (0.3, 30)
    loosened = record("safe", recipe="reference", alpha=0.4)
    assert loosened["quirks"] == [
        "every_phrase_token",
        "greedy_first_token",
        "skip_leading_quote",
        "end_early",
    ]
    assert (loosened["alpha"], loosened["max_tokens"]) == (0.2, 256)
    assert loosened["push"] == pytest.approx(-0.6931, abs=1e-4)
    assert loosened["later_temperature"] == 0.8
    assert "top_k" not in loosened
    drawn = record("safe", recipe="reference", alpha=0)
    assert drawn["seed"] == 7
    left = ReferenceQuirks(later_temperature=None)
    assert "seed" not in record("safe", recipe="reference", alpha=0, quirks=left)


@pytest.mark.parametrize(
    ("request_", "languages"),
    [
        ("How do I run faster here?", ["en"]),
        ("Wie kann ich hier schneller laufen?", ["en", "de"]),
        ("Comment est-ce que je peux courir plus vite ici ?", ["en", "fr"]),
        ("怎么跑得更快？", ["en", "zh"]),
        ("Answer in German: how do I run faster here?", ["en", "de", "fr", "es", "zh"]),
        ("Hm?", ["en", "de", "fr", "es", "zh"]),
    ],
)
def test_phrases_follow_the_requests_language(request_, languages):
    turn = Turn((TurnMessage("user", (TextPart(request_),)),))
    assert record(turn=turn)["lexicon"]["languages"] == languages
    assert record(turn=turn, recipe="paper")["lexicon"] == EVERY_LANGUAGE


def test_own_phrases_stand_beside_their_languages():
    lexicon = RefusalLexicon.load(["de"], extra=["Nay, |never"])
    used = safecode(lexicon=lexicon).record(context(VOCABULARY))["lexicon"]
    assert used == {"languages": ["de"], "phrases": ["Nay, |never"], "digest": lexicon.digest}
