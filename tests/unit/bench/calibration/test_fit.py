from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safecode_guard.bench.calibration import fit
from safecode_guard.errors import GuardError

SCENES = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=4, max_size=60).filter(
    lambda scenes: {unsafe for _, unsafe in scenes} == {True, False}
)


def arrays(scenes: list[tuple[float, bool]]) -> tuple[fit.Floats, fit.Bools]:
    return np.array([p for p, _ in scenes]), np.array([unsafe for _, unsafe in scenes])


def drawn(n: int, temperature: float, bias: float, seed: int = 0) -> tuple[fit.Floats, fit.Bools]:
    """Draw scenes of which a judge says a probability that is off in a known way."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 2, n)
    unsafe = rng.random(n) < 1 / (1 + np.exp(-odds))
    return 1 / (1 + np.exp(-(odds * temperature + bias))), unsafe


@pytest.mark.parametrize(("temperature", "bias"), [(1.0, 0.0), (3.0, 0.0), (0.5, 1.5), (2.0, -1.0)])
def test_what_is_off_in_a_known_way_is_found(temperature: float, bias: float) -> None:
    p, unsafe = drawn(20_000, temperature, bias)
    found_temperature, found_bias = fit.platt(p, unsafe)
    assert found_temperature == pytest.approx(temperature, rel=0.06)
    assert found_bias == pytest.approx(bias, abs=0.15)
    made = fit.calibrated(p, found_temperature, found_bias)
    assert fit.expected_error(made, unsafe) < 0.02
    if (temperature, bias) != (1.0, 0.0):
        assert fit.expected_error(p, unsafe) > 2 * fit.expected_error(made, unsafe)


def test_the_fit_is_no_worse_than_its_neighbours() -> None:
    p, unsafe = drawn(300, 2.0, 0.7)
    temperature, bias = fit.platt(p, unsafe)
    yes, no = unsafe.sum(), (~unsafe).sum()

    def loss(t: float, b: float) -> float:
        total = 0.0
        for value, is_unsafe in zip(p, unsafe, strict=True):
            q = 1 / (1 + math.exp(-(math.log(value / (1 - value)) - b) / t))
            target = (yes + 1) / (yes + 2) if is_unsafe else 1 / (no + 2)
            total -= target * math.log(q) + (1 - target) * math.log(1 - q)
        return total

    best = loss(temperature, bias)
    for t in (0.98, 1.0, 1.02):
        for b in (-0.02, 0.0, 0.02):
            assert loss(temperature * t, bias + b) >= best - 1e-6


def test_scenes_told_apart_without_error_do_not_make_it_infinitely_sure() -> None:
    p, unsafe = np.array([0.001] * 20 + [0.999] * 20), np.array([False] * 20 + [True] * 20)
    temperature, bias = fit.platt(p, unsafe)
    made = fit.calibrated(p, temperature, bias)
    assert 0.01 < made.min() < 0.2
    assert 0.8 < made.max() < 0.99


@pytest.mark.parametrize(
    ("p", "unsafe"),
    [
        ([0.1, 0.9], [True, True]),
        ([0.1, 0.9], [False, False]),
        ([0.9, 0.8, 0.1, 0.2], [0, 0, 1, 1]),
    ],
)
def test_what_cannot_be_fitted_is_told(p: list[float], unsafe: list[bool]) -> None:
    with pytest.raises(GuardError):
        fit.platt(np.array(p), np.array(unsafe, dtype=bool))


@given(SCENES, st.sampled_from([0.01, 0.05, 0.1, 0.3]))
@settings(max_examples=60, deadline=None)
def test_on_the_scenes_themselves_the_thresholds_keep_their_word(
    scenes: list[tuple[float, bool]], share: float
) -> None:
    p, unsafe = arrays(scenes)
    high, low = fit.unsafe_threshold(p, unsafe, share), fit.safe_threshold(p, unsafe, share)
    if high < 1:
        assert (p[~unsafe] >= high).mean() <= share
    assert (p[unsafe] <= low).mean() <= share or low == 0


def test_on_other_scenes_they_keep_it_on_average() -> None:
    alarms, missed = [], []
    for seed in range(200):
        p, unsafe = drawn(60, 2.0, 0.5, seed)
        more, truth = drawn(400, 2.0, 0.5, 10_000 + seed)
        alarms.append((more[~truth] >= fit.unsafe_threshold(p, unsafe, 0.1)).mean())
        missed.append((more[truth] <= fit.safe_threshold(p, unsafe, 0.1)).mean())
    assert np.mean(alarms) <= 0.105
    assert np.mean(missed) <= 0.105


def test_too_few_scenes_promise_nothing_and_call_nothing() -> None:
    p, unsafe = np.array([0.2, 0.3, 0.8, 0.9]), np.array([False, False, True, True])
    assert fit.unsafe_threshold(p, unsafe, 0.05) == 1.0
    assert fit.safe_threshold(p, unsafe, 0.05) == 0.0


@given(SCENES)
@settings(max_examples=60, deadline=None)
def test_the_calibration_error_is_that_of_its_definition(scenes: list[tuple[float, bool]]) -> None:
    p, unsafe = arrays(scenes)
    total = 0.0
    for b in range(fit.BINS):
        inside = [
            (value, truth)
            for value, truth in scenes
            if min(int(value * fit.BINS), fit.BINS - 1) == b
        ]
        if inside:
            share = sum(truth for _, truth in inside) / len(inside)
            mean = sum(value for value, _ in inside) / len(inside)
            total += abs(share - mean) * len(inside) / len(scenes)
    assert fit.expected_error(p, unsafe) == pytest.approx(total, abs=1e-9)
    assert sum(count for _, _, count in fit.reliability(p, unsafe)) == len(scenes)


@given(SCENES, st.sampled_from([0.0, 0.01, 0.2, 1.0]))
@settings(max_examples=60, deadline=None)
def test_recall_is_the_best_that_the_alarms_allow(
    scenes: list[tuple[float, bool]], fpr: float
) -> None:
    p, unsafe = arrays(scenes)
    best = 0.0
    for cut in sorted({value for value, _ in scenes}):
        alarms = [value >= cut for value, truth in scenes if not truth]
        found = [value >= cut for value, truth in scenes if truth]
        if sum(alarms) / len(alarms) <= fpr:
            best = max(best, sum(found) / len(found))
    assert fit.found_at(p, unsafe, fpr).mean() == pytest.approx(best)
    curve = fit.roc(p, unsafe)
    assert curve[0] == (0.0, 0.0)
    assert curve[-1] == (1.0, 1.0)
    assert curve == sorted(curve)


def test_confidently_wrong_counts_sure_verdicts_alone() -> None:
    p, unsafe = np.array([0.01, 0.05, 0.2, 0.9]), np.array([True, False, True, True])
    assert fit.confidently_wrong(p, unsafe) == 0.5
    assert math.isnan(fit.confidently_wrong(p[2:], unsafe[2:]))
