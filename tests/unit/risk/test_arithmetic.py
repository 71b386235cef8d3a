"""RAS's formulas against their twins, and at their edges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.risk import arithmetic
from tests.reference import ras


def logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("cap", [None, 4.0, 30.0])
def test_a_blend_is_the_blend_of_states_through_any_head(cap):
    head, h, mu = logits(0, 11, 5), logits(1, 5), logits(2, 5)
    z, prototype = (arithmetic.capped(head @ state, cap) for state in (h / 4, mu / 4))
    for c in (0.1, 0.5, 0.9, 1.0):
        expected = arithmetic.capped(head @ (h / 4 + c * (mu / 4 - h / 4)), cap)
        got = arithmetic.blended(z, prototype, share=c, cap=cap)
        torch.testing.assert_close(got, expected, atol=2e-4, rtol=2e-4)


def test_at_0_nothing_is_computed():
    z = logits(0, 9)
    assert arithmetic.blended(z, logits(1, 9), share=0.0, cap=4.0) is z


def test_what_the_model_rules_out_stays_out():
    z, prototype = logits(0, 4), logits(1, 4)
    z[1] = prototype[2] = -torch.inf
    got = arithmetic.blended(z, prototype, share=1.0)
    assert got[1] == -torch.inf
    assert got[2] == z[2]
    assert not got.isnan().any()


@pytest.mark.parametrize("length", [1, 2, 3])
def test_similarity_is_the_papers(length):
    ours, theirs = logits(0, length, 7), logits(1, 3, 7)
    expected = ras.cosine(ours.tolist(), theirs[:length].tolist())
    assert arithmetic.similarity(ours, theirs, gamma=0.3) == pytest.approx(expected, abs=1e-9)


def test_a_cap_is_taken_off_and_put_back():
    u = torch.linspace(-9, 9, 7, dtype=torch.float64)
    z = arithmetic.capped(u, 4.0)
    torch.testing.assert_close(arithmetic.uncapped(z, 4.0), u)
    assert arithmetic.uncapped(torch.tensor([4.0, -4.0]), 4.0).isfinite().all()


@given(s=st.floats(0, 1), s0=st.floats(0, 0.99))
def test_certainty_is_the_papers(s, s0):
    found = arithmetic.certainty(s, s0=s0, k=arithmetic.steepness(s0))
    assert found == pytest.approx(ras.certainty(s, s0), abs=1e-9)


def test_certainty_is_half_at_s0_and_99_percent_at_1():
    k = arithmetic.steepness(0.712)
    assert k == pytest.approx(math.log(99) / 0.288)
    assert arithmetic.certainty(0.712, s0=0.712, k=k) == 0.5
    assert arithmetic.certainty(1.0, s0=0.712, k=k) == pytest.approx(0.99)


@pytest.mark.parametrize("s0", [1.0, 1.5, -0.1, math.nan])
def test_where_all_is_like_a_refusal_there_is_no_steepness(s0):
    with pytest.raises(ValueError, match="no room"):
        arithmetic.steepness(s0)
