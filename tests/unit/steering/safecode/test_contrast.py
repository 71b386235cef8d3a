"""The arithmetic against its naive twins, and the laws it obeys."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safecode_guard.errors import PolicyError
from safecode_guard.steering.safecode.contrast import (
    Normalise,
    best,
    check_contrast,
    contrast,
    modulate,
    plausible,
    steer,
)
from tests.reference import steering as naive

NORMALISE: tuple[Normalise, ...] = ("none", "rescale", "vcd")
logits = st.lists(st.integers(-400, 400), min_size=2, max_size=40, unique=True).map(
    lambda values: [value / 16 for value in values]
)
alphas = st.floats(0, 0.9)
unhurried = settings(deadline=None)


@st.composite
def two_views(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    z = draw(logits)
    return z, draw(st.permutations(z))


@unhurried
@given(two_views(), alphas, st.sampled_from(NORMALISE))
def test_contrast_is_the_formula(views, alpha, normalise):
    z, other = views
    got = contrast(torch.tensor(z), torch.tensor(other), alpha=alpha, normalise=normalise)
    expected = torch.tensor(naive.contrasted(z, other, alpha, normalise))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


@unhurried
@given(
    two_views(),
    st.data(),
    alphas,
    st.sampled_from(NORMALISE),
    st.integers(1, 50),
    st.sampled_from([0.0, 0.01, 0.1, 1.0]),
)
def test_a_whole_step_is_the_formula(views, data, alpha, normalise, top_k, plausibility):
    z, other = views
    numbers = {"alpha": alpha, "normalise": normalise, "top_k": top_k, "plausibility": plausibility}
    push = data.draw(st.lists(st.sampled_from([0.0, 1.5, -1.5]), min_size=len(z), max_size=len(z)))
    both = torch.tensor([z, other], dtype=torch.float64)
    expected = naive.steered(z, other, push, **numbers)
    ranked = sorted(naive.contrasted(z, other, alpha, normalise))
    if any(b - a < 1e-9 for a, b in itertools.pairwise(ranked)):
        return  # which of two equal tokens is within the top_k is nobody's business
    got = steer(both, torch.tensor(push, dtype=torch.float64), **numbers).steered
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


@unhurried
@given(logits, st.sampled_from(NORMALISE))
def test_alpha_zero_is_the_clean_view_bit_for_bit(z, normalise):
    clean = torch.tensor([*z, -math.inf, -0.0])
    both = torch.stack([clean, torch.full_like(clean, math.nan)])
    stages = steer(both, None, alpha=0, normalise=normalise, top_k=5, plausibility=0)
    for stage in (stages.contrasted, stages.modulated, stages.steered):
        assert stage.numpy().tobytes() == clean.numpy().tobytes()


@unhurried
@given(logits, alphas, st.sampled_from(["rescale", "vcd"]))
def test_equal_views_leave_rescaled_logits_unchanged(z, alpha, normalise):
    clean = torch.tensor(z)
    assert torch.equal(contrast(clean, clean.clone(), alpha=alpha, normalise=normalise), clean)


@unhurried
@given(logits, alphas)
def test_equal_views_make_the_papers_contrast_a_temperature(z, alpha):
    clean = torch.tensor(z)
    got = contrast(clean, clean.clone(), alpha=alpha, normalise="none").softmax(-1)
    torch.testing.assert_close(got, (clean * (1 - alpha)).softmax(-1))


def test_rescaling_is_the_papers_contrast_at_another_temperature():
    z, other = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
    paper = contrast(z, other, alpha=0.3, normalise="none")
    torch.testing.assert_close(
        contrast(z, other, alpha=0.3, normalise="rescale"), paper / 0.7, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("normalise", NORMALISE)
def test_a_token_that_a_view_rules_out_gives_no_nan(normalise):
    z = torch.tensor([1.0, -math.inf, 2.0, -math.inf])
    other = torch.tensor([0.5, -math.inf, -math.inf, 3.0])
    got = contrast(z, other, alpha=0.5, normalise=normalise)
    assert got[1] == got[3] == -math.inf
    assert got[[0, 2]].isfinite().all()
    alone = contrast(z[2:3], z[2:3], alpha=0.5, normalise=normalise)
    assert got[2] == alone[0]


@pytest.mark.parametrize(
    ("alpha", "normalise"), [(1.0, "rescale"), (1.7, "rescale"), (1.01, "none")]
)
def test_a_meaningless_alpha_is_refused(alpha, normalise):
    with pytest.raises(PolicyError, match=r"decoding\.alpha.*vcd"):
        check_contrast(alpha=alpha, normalise=normalise)


@pytest.mark.parametrize(("alpha", "normalise"), [(0.99, "rescale"), (1.0, "none"), (3.0, "vcd")])
def test_a_meaningful_alpha_is_not(alpha, normalise):
    check_contrast(alpha=alpha, normalise=normalise)


@unhurried
@given(two_views(), st.integers(1, 60))
def test_modulation_touches_the_pushed_tokens_within_the_top_k_alone(views, top_k):
    z = torch.tensor(views[0])
    push = torch.zeros_like(z)
    push[::2] = 1.0
    moved = modulate(z, push, top_k=top_k) != z
    assert torch.equal(moved, best(z, count=top_k) & (push != 0))
    assert moved.sum() <= top_k


@unhurried
@given(logits, st.floats(0.001, 1))
def test_the_cut_keeps_what_has_beta_of_the_best_probability(z, beta):
    p = torch.tensor(z, dtype=torch.float64).softmax(-1)
    kept = plausible(torch.tensor(z, dtype=torch.float64), beta=beta)
    clear = (p / (beta * p.max()) - 1).abs() > 1e-6
    assert torch.equal(kept[clear], (p >= beta * p.max())[clear])
    assert kept[p.argmax()]


def test_the_cut_looks_at_the_clean_view():
    both = torch.tensor([[0.0, -9.0, -1.0], [0.0, -99.0, -1.0]])  # the contrast lifts column 1
    numbers = {"alpha": 0.5, "normalise": "rescale", "top_k": 3}
    assert steer(both, None, plausibility=0, **numbers).steered.argmax() == 1
    stages = steer(both, None, plausibility=0.1, **numbers)
    assert stages.steered.argmax() == 0
    assert stages.steered[1] == -math.inf


def test_the_cut_spares_what_the_verdict_raised_and_not_what_it_lowered():
    both = torch.tensor([[0.0, -4.0, -4.5]])
    numbers = {"alpha": 0, "normalise": "none", "top_k": 3, "plausibility": 0.1}
    assert steer(both, torch.tensor([0, 5.0, 0]), **numbers).steered.tolist() == [
        0,
        1,
        -math.inf,
    ]
    assert steer(both, torch.tensor([0, -5.0, 0]), **numbers).steered[1] == -math.inf


def test_one_view_has_nothing_to_contrast():
    one = torch.tensor([[1.0, 2.0, 3.0]])
    stages = steer(one, None, alpha=0.3, normalise="none", top_k=3, plausibility=0)
    assert torch.equal(stages.steered, one[0])
