from __future__ import annotations

import math

import numpy as np
import pytest

from safecode_guard.bench.intervals import interval, relative_interval


def coin(heads: int, tails: int) -> np.ndarray:
    return np.array([100.0] * heads + [0.0] * tails)


def test_an_interval_holds_the_mean_and_agrees_with_the_normal_one() -> None:
    low, high = interval(coin(300, 100))
    error = 100 * math.sqrt(0.75 * 0.25 / 400)
    assert low == pytest.approx(75 - 1.96 * error, abs=0.6)
    assert high == pytest.approx(75 + 1.96 * error, abs=0.6)


def test_intervals_are_the_same_for_the_same_seed_only() -> None:
    assert interval(coin(30, 11), seed=3) == interval(coin(30, 11), seed=3)
    few = {"draws": 50}
    assert interval(coin(30, 11), seed=3, **few) != interval(coin(30, 11), seed=4, **few)


def test_more_units_make_a_narrower_interval() -> None:
    few, many = interval(coin(6, 4)), interval(coin(600, 400))
    assert many[1] - many[0] < (few[1] - few[0]) / 5


def test_without_spread_there_is_no_width_and_without_data_no_number() -> None:
    assert interval(coin(5, 0)) == (100.0, 100.0)
    assert all(map(math.isnan, interval(coin(0, 0))))


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = 100.0 * (rng.random((200, 80)) < 0.7)
    hits = [low <= 70 <= high for low, high in (interval(s, draws=500) for s in samples)]
    assert 0.88 <= np.mean(hits) <= 0.99


def test_whole_groups_are_drawn_where_units_come_in_groups() -> None:
    """Ten copies of four phrases are worth about four observations, not forty."""
    values = np.repeat([0.0, 0.0, 100.0, 100.0], 10)
    groups = [name for name in "abcd" for _ in range(10)]
    alone, grouped = interval(values), interval(values, groups=groups)
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])


def test_a_relative_change_is_drawn_unit_by_unit() -> None:
    base = coin(40, 60)
    assert relative_interval(base, base) == (0.0, 0.0)
    low, high = relative_interval(coin(20, 80), base)
    assert low < -0.5 < high < 0
    assert all(map(math.isnan, relative_interval(base, coin(0, 100))))
