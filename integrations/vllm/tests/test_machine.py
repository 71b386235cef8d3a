"""What parts a pair for good, seen row by row."""

from __future__ import annotations

import pytest
import torch
from engine import HALT, SEAL, logits
from safecode_guard_vllm.machine import Pairs, Row
from test_adapters import GUIDED, MAIN, SEED, TWIN


def step(pairs: Pairs, main: list[int] | None, twin: list[int] | None) -> list[int]:
    """Return the tokens that the rows which are there get, the main's first."""
    written = [(MAIN, main), (TWIN, twin)]
    there = [(spec, tokens) for spec, tokens in written if tokens is not None]
    rows = torch.stack([logits(SEED, spec.role, tokens) for spec, tokens in there])
    pairs.apply(rows, [Row(i, spec, tokens) for i, (spec, tokens) in enumerate(there)])
    return rows.argmax(dim=1).tolist()


@pytest.mark.parametrize(
    ("main", "twin"),
    [
        (GUIDED[:1], []),
        ([], GUIDED[:1]),
        (GUIDED[:2], GUIDED[:1]),
        ([19, GUIDED[1]], GUIDED[:2]),
        ([*GUIDED[:2], 19], [*GUIDED[:2], 19]),
    ],
)
def test_lengths_or_tokens_that_do_not_fit_part_a_pair_for_good(
    main: list[int], twin: list[int]
) -> None:
    pairs = Pairs()
    assert step(pairs, [], []) == GUIDED[:1] * 2
    assert step(pairs, GUIDED[:1], GUIDED[:1]) == GUIDED[1:2] * 2
    assert step(pairs, main, twin) == [HALT, HALT]
    assert step(pairs, GUIDED[:2], GUIDED[:2]) == [HALT, HALT]


def test_a_row_alone_halts_and_its_pair_may_still_meet() -> None:
    pairs = Pairs()
    assert step(pairs, [], None) == [HALT]
    assert step(pairs, None, []) == [HALT]
    assert step(pairs, [], []) == GUIDED[:1] * 2
    assert step(pairs, [], []) == GUIDED[:1] * 2  # neither was kept: once more


def test_the_twin_is_not_sealed_while_the_main_is_behind() -> None:
    pairs = Pairs()
    for count in range(len(GUIDED)):
        step(pairs, GUIDED[:count], GUIDED[:count])
    assert step(pairs, GUIDED[:-1], GUIDED) == [HALT, HALT]


def test_a_twin_alone_is_sealed_behind_the_last_guided_token() -> None:
    pairs = Pairs()
    for count in range(len(GUIDED)):
        step(pairs, GUIDED[:count], GUIDED[:count])
    assert step(pairs, None, GUIDED) == [SEAL]
