"""A cover decides as the steering itself does, wherever it does not say that it is beyond it."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence

import pytest

from safecode_guard.errors import PolicyError
from safecode_guard.models.protocol import Vocabulary
from safecode_guard.steering.pairs import covering
from safecode_guard.steering.pairs.cover import MOST_LEAD, Cover
from safecode_guard.steering.pairs.covering import Coverage, Guidance
from safecode_guard.steering.pairs.spec import PairSpec
from safecode_guard.steering.safecode.guided import GuidedSteps
from safecode_guard.steering.safecode.leads import MOST_LEAD_TOKENS
from safecode_guard.taxonomy import Label
from tests.unit.steering.contexts import context, safecode
from tests.unit.steering.vocabularies import byte_level, characters, sentence_piece

VOCABULARIES: dict[str, Callable[[], Vocabulary]] = {
    "byte_level": byte_level,
    "sentence_piece": sentence_piece,
    "characters": characters,
}
OPENINGS = (
    "**Answer:** I am sorry, but I cannot help with that.",
    "As an AI language model, I can't do this.",
    "Assistant: I cannot",
    "1. I won't",
    "🙂 Sorry, no.",
    "Unfortunately, the photo",
    "<think>No.</think>I cannot",
    "\n\n“I'm not able to",
    "I see a dog.",
    "对不起，我不能",
)


@functools.cache
def coverage(name: str) -> Coverage:
    return Coverage(VOCABULARIES[name]())


@functools.cache
def steering(name: str, label: Label, recipe: str = "guarded") -> GuidedSteps:
    made = safecode(recipe=recipe).prepare(context(VOCABULARIES[name](), label))
    assert isinstance(made, GuidedSteps)
    return made


def spec_of(guidance: Guidance, steering: GuidedSteps, vocabulary: Vocabulary) -> PairSpec:
    record = steering.record
    return PairSpec(
        pair="0" * 32,
        role="main",
        steps=guidance.steps,
        most=guidance.most,
        alpha=record.alpha,
        normalise=record.normalise or "none",
        top_k=record.top_k or vocabulary.size,
        plausibility=record.plausibility,
        push=record.push,
        eos=(),
        halt=vocabulary.size - 1,
        seal=vocabulary.size - 2,
        cover=guidance.cover,
    )


def written(rng: random.Random, name: str, steering: GuidedSteps) -> list[int]:
    """Return a text that goes along the trie, through marks and openings, or anywhere."""
    vocabulary, coverage_ = VOCABULARIES[name](), coverage(name)
    marks, unsure = (sorted(ids) for ids in coverage_.classes)
    tokens: list[int] = []
    if rng.random() < 0.4:
        opening = vocabulary.encode(rng.choice(OPENINGS))
        tokens += opening[: rng.randrange(len(opening) + 1)]
    while len(tokens) < 24:
        shares = list(steering.shares(tokens))
        pools = [shares or marks, shares or unsure, marks, marks, unsure, range(vocabulary.size)]
        weights = [6, 6, 2, 2, 1, 1] if rng.random() < 0.8 else [0, 0, 4, 4, 1, 1]
        tokens.append(rng.choice(rng.choices(pools, weights)[0]))
    return tokens


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("label", ["unsafe", "safe"])
def test_a_chain_of_covers_decides_as_the_steering_does(name: str, label: Label) -> None:
    rng, strategy, vocabulary = random.Random(5), steering(name, label), VOCABULARIES[name]()
    steps = 0
    for _ in range(50):
        text = written(rng, name, strategy)
        begun, spec = 0, None
        for count in range(len(text) + 1):
            so_far = text[:count]
            if strategy.trie.reasoning.end(so_far) is None:  # type: ignore[attr-defined]
                break
            place = spec and spec.cover.place(text[begun:count])
            if place and place.beyond and strategy.done(so_far):
                break  # halted instead of sealed: the client finds that nothing is left
            if place is None or place.beyond:
                spec = spec_of(coverage(name).of(strategy, so_far), strategy, vocabulary)
                begun, place = count, spec.cover.place([])
                assert not place.beyond  # a pair goes on by one token at least
            over = spec.over(text[begun:count], place)
            assert over == strategy.done(so_far), (so_far, vocabulary.decode(so_far))
            if over:
                break
            assert place.shares == strategy.shares(so_far)
            steps += 1
    assert steps > 150


def test_a_cover_survives_being_sent() -> None:
    vocabulary, strategy = byte_level(), steering("byte_level", "safe")
    cover = coverage("byte_level").of(strategy).cover
    again = Cover.from_json(cover.to_json())
    rng = random.Random(3)
    for _ in range(100):
        text = written(rng, "byte_level", strategy)
        assert [cover.place(text[:n]) for n in range(20)] == [
            again.place(text[:n]) for n in range(20)
        ]
    assert again.highest < vocabulary.size


def test_a_cover_that_is_cut_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = steering("byte_level", "unsafe")
    monkeypatch.setattr(covering, "MOST_EDGES", 200)
    cover = coverage("byte_level").of(strategy).cover
    seen, text = 0, []
    while shares := strategy.shares(text):
        place = cover.place(text)
        if place.beyond:
            seen += 1
            assert place.inside
            break
        text.append(min(shares))
    assert seen == 1


def test_marks_before_the_first_word_are_bounded() -> None:
    assert MOST_LEAD == MOST_LEAD_TOKENS
    strategy, (marks, _) = steering("byte_level", "unsafe"), coverage("byte_level").classes
    cover = coverage("byte_level").of(strategy).cover
    mark, word = min(marks), min(strategy.shares([]))
    for many in (15, 16, 17):
        text = [mark] * many + [word]
        assert cover.place(text).shares == strategy.shares(text)


def test_recipe_paper_is_covered_whole() -> None:
    strategy = steering("byte_level", "unsafe", "paper")
    guidance = coverage("byte_level").of(strategy, [3, 4])
    assert (guidance.steps, guidance.most) == (3, 3)
    assert guidance.cover.place([9]).shares == strategy.shares([9])


def test_no_pair_begins_within_reasoning() -> None:
    strategy = steering("byte_level", "unsafe")
    thought: Sequence[int] = byte_level().encode("<think>Well")
    with pytest.raises(PolicyError, match="reasoning"):
        coverage("byte_level").of(strategy, thought)


@pytest.mark.parametrize("label", ["unsafe", "safe"])
def test_a_spec_with_its_trie_is_small(label: Label) -> None:
    strategy = steering("byte_level", label)
    spec = spec_of(coverage("byte_level").of(strategy), strategy, byte_level())
    assert len(spec.to_text()) <= 40_000
