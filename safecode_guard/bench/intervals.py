"""How sure a figure is: seeded bootstrap intervals of means, differences and relative changes.

What is drawn again is the unit that was sampled in the first place: a pair, with both of its
answers, never one answer alone. Given ``groups``, whole groups are drawn: the same few phrases
come back in many pairs, so an interval over phrases is the wider and the more honest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Interval = tuple[float, float]
DRAWS: Final = 4000
_TAILS: Final = (2.5, 97.5)


def interval(
    values: Values, *, groups: Sequence[str] | None = None, seed: int = 0, draws: int = DRAWS
) -> Interval:
    """Return the 95 % interval of the mean of ``values`` [units], NaN without any.

    Args:
        values: One number per unit, such as the difference of two rows on one pair.
        groups: The group of each unit; whole groups are then drawn again.
        seed: Of the draws.
        draws: How often.
    """
    if not len(values):
        return (float("nan"), float("nan"))
    means = _means(values[None], _units(len(values), groups), seed=seed, draws=draws)[0]
    return _bounds(means)


def relative_interval(
    values: Values, base: Values, *, seed: int = 0, draws: int = DRAWS
) -> Interval:
    """Return the 95 % interval of mean(values) / mean(base) - 1, both [units] of the same units.

    Draws in which the base has a mean of zero say nothing and are left out.
    """
    if not len(values):
        return (float("nan"), float("nan"))
    both = np.stack([values, base])
    mine, other = _means(both, _units(len(values), None), seed=seed, draws=draws)
    told = other != 0
    if not told.any():
        return (float("nan"), float("nan"))
    return _bounds(mine[told] / other[told] - 1)


def _units(count: int, groups: Sequence[str] | None) -> NDArray[np.int64]:
    """Return the number of the group of each unit, int64 [units]."""
    if groups is None:
        return np.arange(count)
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def _means(values: Values, units: NDArray[np.int64], *, seed: int, draws: int) -> Values:
    """Return the means [rows, draws] of values [rows, units] under draws of whole groups."""
    groups = int(units.max()) + 1
    sums = np.stack([np.bincount(units, row, groups) for row in values])  # [rows, groups]
    sizes = np.bincount(units, minlength=groups)
    drawn = np.random.default_rng(seed).integers(0, groups, (draws, groups))
    means: Values = sums[:, drawn].sum(-1) / sizes[drawn].sum(-1)
    return means


def _bounds(means: Values) -> Interval:
    low, high = np.percentile(means, _TAILS)
    return (float(low), float(high))
