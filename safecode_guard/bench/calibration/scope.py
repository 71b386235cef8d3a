"""Fitting the scope of a judge: centres and covariance on one half, the threshold on the other."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from safecode_guard.bench.calibration.fit import Bools, Floats
from safecode_guard.errors import GuardError
from safecode_guard.judges.scope import Scope

DIRECTIONS: Final = 64
SHRINKAGE: Final = 0.01
"""Of the mean variance, added to every direction's: few scenes tell small variances badly."""
_DIGITS: Final = 6


def scope_of(states: Floats, unsafe: Bools, *, share: float, seed: int) -> Scope:
    """Return the scope of scenes with states [n, d], of which ``share`` may lie beyond it.

    The threshold is split conformal: its promise holds on average for scenes that come from where
    these did.

    Raises:
        GuardError: If there are too few scenes of either kind, or for so small a share.
    """
    order = np.random.default_rng(seed).permutation(len(states))
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    rank = math.ceil((len(second) + 1) * (1 - share))
    if min(unsafe[first].sum(), (~unsafe[first]).sum()) < 2 or rank > len(second):
        raise GuardError(
            f"{len(states)} scenes are too few for a scope that {share:.1%} may lie beyond.",
            hint="Give more scenes, or a larger --scope.",
        )
    made = _fitted(states[first], unsafe[first], share)
    distances = np.sort(made.unlikeness(states[second].tolist()))
    return made.model_copy(update={"threshold": float(distances[rank - 1])})


def _fitted(states: Floats, unsafe: Bools, share: float) -> Scope:
    """Return centres and pooled covariance of both kinds of scenes, with a threshold of 1."""
    centres = np.stack([states[~unsafe].mean(0), states[unsafe].mean(0)])
    apart = states - centres[unsafe.astype(int)]
    variances, directions = np.linalg.eigh(apart.T @ apart / (len(apart) - 2))
    variances, directions = variances[::-1].clip(0), directions[:, ::-1].T  # the largest first
    kept, floor = variances[:DIRECTIONS], SHRINKAGE * float(variances.mean())
    others = float(variances[DIRECTIONS:].mean()) if len(variances) > len(kept) else 0.0
    if floor <= 0:
        raise GuardError("The judge's states are all alike, so nothing tells scenes apart.")
    return Scope(
        centres=_rows(centres),
        directions=_rows(directions[:DIRECTIONS]),
        variances=tuple((kept + floor).tolist()),
        rest=others + floor,
        threshold=1.0,
        share=share,
    )


def _rows(values: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, values.round(_DIGITS).tolist()))
