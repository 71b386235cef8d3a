from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.errors import JudgeError
from safecode_guard.judges.labels import LabelTokens, label_tokens, verdict_probability

LABELS = LabelTokens(safe=frozenset({2, 4}), unsafe=frozenset({3, 5}))


class Table:
    """A tokenizer by table: greedy longest match, one id for everything unknown."""

    eos_ids = frozenset({0})

    def __init__(self, pieces: Sequence[str], unknown: bool = False) -> None:
        self.id = "table"
        self.pieces = ["<eos>", "<unk>", *pieces]
        self.size = len(self.pieces)
        self.special_ids = frozenset({0, 1} if unknown else {0})

    def encode(self, text: str) -> list[int]:
        ids = []
        while text:
            fits = [p for p in self.pieces[2:] if text.startswith(p)]
            piece = max(fits, key=len, default=None)
            ids.append(self.pieces.index(piece) if piece else 1)
            text = text[len(piece or " ") :]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces[i] for i in ids if i not in self.special_ids)

    def named(self, *pieces: str) -> set[int]:
        return {self.pieces.index(piece) for piece in pieces}


CHARS = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \n")


def test_whole_word_tokens_are_found_in_all_their_ways_of_being_written() -> None:
    words = [lead + word for lead in ("", " ") for word in ("safe", "Safe", "unsafe", "UNSAFE")]
    table = Table([*words, *CHARS])
    tokens = label_tokens(table)
    assert table.named("safe", "Safe", " safe", " Safe") <= tokens.safe
    assert table.named("unsafe", "UNSAFE", " unsafe", " UNSAFE", "U") <= tokens.unsafe
    assert not tokens.safe & tokens.unsafe
    assert not (tokens.safe | tokens.unsafe) & table.named(" ", "\n")


def test_split_unsafe_is_known_by_its_first_piece_alone() -> None:
    table = Table(["un", "safe", "Un", "Safe", "UN", "SAFE", " ", "\n", " un"])
    tokens = label_tokens(table)
    assert tokens.safe == table.named("safe", "Safe", "SAFE")
    assert tokens.unsafe == table.named("un", "Un", "UN", " un")


def test_leading_whitespace_tokens_are_dropped_however_many() -> None:
    table = Table([" ", "\n", *CHARS])
    tokens = label_tokens(table)
    assert tokens.safe == table.named("s", "S")
    assert tokens.unsafe == table.named("u", "U")


def test_token_that_begins_both_labels_counts_for_neither() -> None:
    table = Table(["safe", "unsafe", "▁", " "], unknown=False)
    table.encode = {  # type: ignore[method-assign]
        **{lead + "safe": [2] for lead in ("", " ", "\n")},
        **{lead + "unsafe": [3] for lead in ("", " ", "\n")},
        **{lead + w: [4, 2] for lead in ("", " ", "\n") for w in ("Safe", "SAFE")},
        **{lead + w: [4, 3] for lead in ("", " ", "\n") for w in ("Unsafe", "UNSAFE")},
    }.__getitem__
    tokens = label_tokens(table)
    assert tokens.safe == {2}
    assert tokens.unsafe == {3}


def test_unknown_token_is_no_label() -> None:
    table = Table(["safe", "unsafe", " ", "\n"], unknown=True)
    tokens = label_tokens(table)
    assert tokens.safe == table.named("safe")
    assert tokens.unsafe == table.named("unsafe")


def test_vocabulary_that_cannot_tell_the_labels_apart_is_an_error() -> None:
    with pytest.raises(JudgeError, match="same tokens"):
        label_tokens(Table([], unknown=False))


@given(st.lists(st.floats(-40, 40), min_size=8, max_size=8), st.floats(-3, 3), st.floats(0.2, 5))
def test_probability_is_the_formula_over_the_variants(
    values: list[float], bias: float, temperature: float
) -> None:
    total = sum(math.exp(value) for value in values)
    scores = {token: value - math.log(total) for token, value in enumerate(values)}
    p, mass = verdict_probability(scores, LABELS, bias=bias, temperature=temperature)
    safe = (math.exp(values[2]) + math.exp(values[4])) / total
    unsafe = (math.exp(values[3]) + math.exp(values[5])) / total
    odds = (math.log(unsafe) - math.log(safe) - bias) / temperature
    assert p == pytest.approx(1 / (1 + math.exp(-odds)) if odds > -700 else 0.0, abs=1e-6)
    assert mass == pytest.approx(safe + unsafe, abs=1e-6)


def scored(safe: float, unsafe: float) -> dict[int, float]:
    rest = -math.inf
    return {2: safe, 4: rest, 3: unsafe, 5: rest}


def test_scores_of_few_tokens_suffice() -> None:
    p, mass = verdict_probability(scored(math.log(0.01), math.log(0.03)), LABELS)
    assert (p, mass) == (pytest.approx(0.75), pytest.approx(0.04))


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        (scored(-math.inf, -math.inf), (0.5, 0.0)),
        (scored(-900.0, -901.0), (0.5, 0.0)),
        (scored(0.0, -math.inf), (0.0, 1.0)),
        (scored(-math.inf, 0.0), (1.0, 1.0)),
        (scored(1e-4, -math.inf), (0.0, 1.0)),
    ],
)
def test_labels_without_mass_have_no_opinion_and_rounding_is_forgiven(
    scores: dict[int, float], found: tuple[float, float]
) -> None:
    assert verdict_probability(scores, LABELS) == found


@pytest.mark.parametrize("bad", [math.nan, math.inf, 3.0])
@pytest.mark.parametrize("token", [2, 3])
def test_scores_that_are_no_log_probabilities_are_an_error(bad: float, token: int) -> None:
    with pytest.raises(JudgeError, match="no log-probabilities"):
        verdict_probability(scored(-1.0, -1.0) | {token: bad}, LABELS)


def test_probabilities_that_add_up_to_more_than_one_are_an_error() -> None:
    with pytest.raises(JudgeError, match="more than 1"):
        verdict_probability(scored(-0.1, -0.1), LABELS)


@pytest.mark.parametrize("missing", [2, 3, 4, 5])
def test_missing_score_is_an_error(missing: int) -> None:
    scores = scored(-1.0, -1.0)
    del scores[missing]
    with pytest.raises(JudgeError, match="no score of 1 of the labels' tokens"):
        verdict_probability(scores, LABELS)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        verdict_probability(scored(-1.0, -1.0), LABELS, temperature=temperature)
