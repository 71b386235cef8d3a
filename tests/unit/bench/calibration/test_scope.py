from __future__ import annotations

import numpy as np
import pytest

from safecode_guard.bench.calibration.fit import Bools, Floats
from safecode_guard.bench.calibration.scope import DIRECTIONS, SHRINKAGE, _fitted, scope_of
from safecode_guard.errors import GuardError
from tests.reference import judging


def drawn(n: int, d: int, seed: int) -> tuple[Floats, Bools]:
    """Two clouds of one shape, at different places."""
    rng = np.random.default_rng(seed)
    unsafe = rng.random(n) < 0.4
    shape = np.random.default_rng(99).normal(size=(d, d))
    return rng.normal(size=(n, d)) @ shape + 5.0 * unsafe[:, None], unsafe


def test_centres_and_covariance_are_the_blackboards() -> None:
    states, unsafe = drawn(40, 4, 0)
    made = _fitted(states, unsafe, 0.05)
    assert made.centres[0] == pytest.approx(states[~unsafe].mean(0), abs=1e-5)
    assert made.centres[1] == pytest.approx(states[unsafe].mean(0), abs=1e-5)
    plain = np.array(judging.pooled(states.tolist(), unsafe.tolist()))
    shrunk = plain + SHRINKAGE * np.trace(plain) / 4 * np.eye(4)
    assert np.array(judging.covariance(made)) == pytest.approx(shrunk, rel=1e-4, abs=1e-4)


def test_of_wide_states_the_largest_directions_are_kept() -> None:
    states, unsafe = drawn(400, DIRECTIONS + 30, 0)
    made = _fitted(states, unsafe, 0.05)
    assert len(made.directions) == len(made.variances) == DIRECTIONS
    assert list(made.variances) == sorted(made.variances, reverse=True)
    assert 0 < made.rest < made.variances[-1]


@pytest.mark.parametrize("share", [0.04, 0.2])
def test_of_scenes_alike_the_share_lies_beyond_it_and_of_others_nearly_all(share: float) -> None:
    beyond = []
    for seed in range(20):
        made = scope_of(*drawn(600, 6, seed), share=share, seed=seed)
        assert made.share == share
        others, _ = drawn(500, 6, 1000 + seed)
        beyond.append(float((np.array(made.unlikeness(others.tolist())) > 1).mean()))
        strange = np.array(made.unlikeness((others + 60).tolist()))
        assert (strange > 1).all()
    assert np.mean(beyond) == pytest.approx(share, abs=0.01 + 0.1 * share)


def test_too_few_scenes_are_told() -> None:
    with pytest.raises(GuardError, match="too few"):
        scope_of(*drawn(20, 3, 0), share=0.04, seed=0)
    states, _ = drawn(100, 3, 0)
    with pytest.raises(GuardError, match="too few"):
        scope_of(states, np.zeros(100, dtype=bool), share=0.1, seed=0)
    with pytest.raises(GuardError, match="alike"):
        scope_of(np.ones((100, 3)), np.arange(100) % 2 == 0, share=0.1, seed=0)
