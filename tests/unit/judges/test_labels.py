from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.errors import JudgeError
from safecode_guard.judges.labels import label_tokens, verdict_probability


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
    table = Table(["safe", "unsafe", " safe", " unsafe", "x", " "])
    p, mass = verdict_probability(
        torch.tensor(values), torch.arange(8), table, bias=bias, temperature=temperature
    )
    total = sum(math.exp(v) for v in values)
    safe = (math.exp(values[2]) + math.exp(values[4])) / total
    unsafe = (math.exp(values[3]) + math.exp(values[5])) / total
    odds = (math.log(unsafe) - math.log(safe) - bias) / temperature
    assert p == pytest.approx(1 / (1 + math.exp(-odds)) if odds > -700 else 0.0, abs=1e-4)
    assert mass == pytest.approx(safe + unsafe, abs=1e-4)


def test_columns_are_found_by_their_candidates() -> None:
    table = Table(["safe", "unsafe", "x", "y", " "])
    logits = torch.tensor([0.0, 0.0, 3.0, 1.0, 0.0, 0.0, 0.0])
    order = torch.tensor([3, 6, 2, 0, 5, 1, 4])
    straight = verdict_probability(logits, torch.arange(7), table)
    assert verdict_probability(logits[order], order, table) == pytest.approx(straight)


def test_partial_candidates_are_log_probabilities_as_they_are() -> None:
    table = Table(["safe", "unsafe", "x", "y", " "])
    logits = torch.tensor([0.03, 0.01]).log()
    p, mass = verdict_probability(logits, torch.tensor([3, 2]), table)
    assert (p, mass) == (pytest.approx(0.75), pytest.approx(0.04))


def test_masked_out_labels_have_no_mass_and_no_opinion() -> None:
    table = Table(["safe", "unsafe", "x", " "])
    logits = torch.tensor([1.0, 0.0, -math.inf, -math.inf, 0.0, 0.0])
    assert verdict_probability(logits, torch.arange(6), table) == (0.5, 0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_logits_are_an_error(bad: float) -> None:
    table = Table(["safe", "unsafe", "x", " "])
    with pytest.raises(JudgeError, match="not finite"):
        verdict_probability(torch.tensor([bad, 0, 0, 0, 0, 0]), torch.arange(6), table)


def test_candidates_without_a_label_are_an_error() -> None:
    table = Table(["safe", "unsafe", "x", " "])
    with pytest.raises(JudgeError, match="No candidate"):
        verdict_probability(torch.tensor([-1.0]), torch.tensor([2]), table)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature: float) -> None:
    table = Table(["safe", "unsafe", " "])
    with pytest.raises(ValueError, match="temperature"):
        verdict_probability(torch.zeros(5), torch.arange(5), table, temperature=temperature)
