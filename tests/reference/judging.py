"""The formulas of judging as one would write them on a blackboard: loops, no tricks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safecode_guard.judges.scope import Scope

Rows = Sequence[Sequence[float]]


def covariance(scope: Scope) -> list[list[float]]:
    """C = rest I + sum over directions u of (variance - rest) u u^T."""
    d = len(scope.centres[0])
    made = [[scope.rest * (i == j) for j in range(d)] for i in range(d)]
    for u, variance in zip(scope.directions, scope.variances, strict=True):
        for i in range(d):
            for j in range(d):
                made[i][j] += (variance - scope.rest) * u[i] * u[j]
    return made


def unlikeness(scope: Scope, state: Sequence[float]) -> float:
    """Min over centres m of (x - m)^T C^-1 (x - m), over the threshold."""
    inverse = np.linalg.inv(np.array(covariance(scope)))
    distances = []
    for centre in scope.centres:
        apart = [x - m for x, m in zip(state, centre, strict=True)]
        distances.append(
            sum(
                apart[i] * inverse[i][j] * apart[j]
                for i in range(len(apart))
                for j in range(len(apart))
            )
        )
    return min(distances) / scope.threshold


def pooled(states: Rows, unsafe: Sequence[bool]) -> list[list[float]]:
    """S = sum over scenes of (x - its kind's mean)(x - its kind's mean)^T / (n - 2)."""
    d = len(states[0])
    means = {}
    for kind in (False, True):
        own = [x for x, u in zip(states, unsafe, strict=True) if u == kind]
        means[kind] = [sum(x[i] for x in own) / len(own) for i in range(d)]
    made = [[0.0] * d for _ in range(d)]
    for x, u in zip(states, unsafe, strict=True):
        for i in range(d):
            for j in range(d):
                apart = (x[i] - means[u][i]) * (x[j] - means[u][j])
                made[i][j] += apart / (len(states) - 2)
    return made


def debiased(p_safe: float, p_unsafe: float, nothing: Rows) -> float:
    """P(unsafe) of p(label) / q(label), renormalised; q of each content-free prompt in turn.

    Over several prompts their geometric mean is taken.
    """
    safe = unsafe = 1.0
    for q_safe, q_unsafe in nothing:
        safe *= q_safe ** (1 / len(nothing))
        unsafe *= q_unsafe ** (1 / len(nothing))
    return (p_unsafe / unsafe) / (p_unsafe / unsafe + p_safe / safe)
