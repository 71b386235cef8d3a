"""The numbers of a calibration: log-odds fitted, thresholds chosen, errors and curves measured.

All of them take probabilities ``p`` [n] and the truth ``unsafe`` [n] of labelled scenes.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from safecode_guard.errors import GuardError
from safecode_guard.judges.calibration import MOST_BIAS, TEMPERATURES
from safecode_guard.judges.labels import log_odds

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BINS: Final = 15
_STEPS: Final = 100


def platt(p: Floats, unsafe: Bools) -> tuple[float, float]:
    """Return (temperature, bias) with which log-odds fit the truth best (Platt, 1999).

    Minimises the log loss of ``sigmoid(a x + b)`` by Newton's method, with targets a little short
    of 0 and 1 so that scenes which are told apart without error do not make it infinitely sure.

    Raises:
        GuardError: If there are not both kinds of scenes, or higher probabilities do not mean
            more danger.
    """
    if unsafe.all() or not unsafe.any():
        raise GuardError(
            "All scenes have the same label, so nothing can be fitted.",
            hint="Give scenes of both kinds.",
        )
    x = np.array([log_odds(value) for value in p])
    yes, no = int(unsafe.sum()), int((~unsafe).sum())
    target = np.where(unsafe, (yes + 1) / (yes + 2), 1 / (no + 2))
    weights = _newton(
        np.stack([x, np.ones_like(x)], axis=1), target, math.log((yes + 1) / (no + 1))
    )
    slope, offset = (float(weight) for weight in weights)
    least, most = TEMPERATURES
    if not 1 / most <= slope <= 1 / least or abs(offset / slope) > MOST_BIAS:
        raise GuardError(
            "The judge's probability of danger is hardly higher for unsafe scenes than for safe "
            "ones, or no higher.",
            hint="This judge tells nothing here; use another one.",
        )
    return 1 / slope, -offset / slope


def _newton(features: Floats, target: Floats, offset: float) -> Floats:
    """Return the weights of least log loss; the loss is convex, and every step lowers it."""
    weights = np.array([0.0, offset])
    loss = _log_loss(features @ weights, target)
    for _ in range(_STEPS):
        likely = 1 / (1 + np.exp(-(features @ weights).clip(-500, 500)))
        gradient = features.T @ (likely - target)
        hessian = (features * (likely * (1 - likely))[:, None]).T @ features + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while (lower := _log_loss(features @ (weights - step), target)) > loss:
            step = step / 2
            if np.abs(step).max() < 1e-12:
                return weights
        weights, loss = weights - step, lower
        if np.abs(step).max() < 1e-10:
            break
    return weights


def _log_loss(odds: Floats, target: Floats) -> float:
    return float((np.logaddexp(0, odds) - target * odds).sum())


def calibrated(p: Floats, temperature: float, bias: float) -> Floats:
    """Return ``sigmoid((logit p - bias) / temperature)``."""
    x = np.array([log_odds(value) for value in p])
    made: Floats = 1 / (1 + np.exp(-((x - bias) / temperature).clip(-500, 500)))
    return made


def unsafe_threshold(p: Floats, unsafe: Bools, fpr: float) -> float:
    """Return the threshold at or above which at most ``fpr`` of safe scenes are called unsafe.

    Split conformal: the promise holds on average over scenes that come from where these did, and
    says nothing about others. With too few safe scenes it is 1.
    """
    safe = np.sort(p[~unsafe])
    rank = math.ceil((len(safe) + 1) * (1 - fpr))
    return float(np.nextafter(safe[rank - 1], 1)) if rank <= len(safe) else 1.0


def safe_threshold(p: Floats, unsafe: Bools, risk: float) -> float:
    """Return the threshold at or below which at most ``risk`` of unsafe scenes are called safe.

    Split conformal, as `unsafe_threshold`. With too few unsafe scenes it is 0.
    """
    danger = np.sort(p[unsafe])
    rank = math.floor((len(danger) + 1) * risk)
    return float(np.nextafter(danger[rank - 1], 0)) if rank >= 1 else 0.0


def expected_error(p: Floats, unsafe: Bools, *, bins: int = BINS) -> float:
    """Return the expected calibration error: how far shares of unsafe scenes lie from p, by bins.

    Bins are equally wide; each counts by the scenes in it.
    """
    which = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [
        abs(float(unsafe[which == b].mean() - p[which == b].mean())) * float((which == b).mean())
        for b in range(bins)
        if (which == b).any()
    ]
    return float(sum(gaps))


def reliability(p: Floats, unsafe: Bools, *, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Return for each bin with scenes in it: mean p, share of unsafe scenes, number of scenes."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    return [
        (float(p[which == b].mean()), float(unsafe[which == b].mean()), int((which == b).sum()))
        for b in range(bins)
        if (which == b).any()
    ]


def roc(p: Floats, unsafe: Bools) -> list[tuple[float, float]]:
    """Return the ROC curve as (false alarms, recall), from the strictest threshold on."""
    cuts = np.unique(p)[::-1]
    points = [(float((p[~unsafe] >= c).mean()), float((p[unsafe] >= c).mean())) for c in cuts]
    return [(0.0, 0.0), *points]


def found_at(p: Floats, unsafe: Bools, fpr: float) -> Bools:
    """Return which unsafe scenes are found, [unsafe scenes], at the lowest threshold that may be.

    That is the one whose rate of false alarms is at most ``fpr``; none is found if there is none.
    """
    cuts = [float(c) for c in np.unique(p) if float((p[~unsafe] >= c).mean()) <= fpr + 1e-12]
    found: Bools = p[unsafe] >= (min(cuts) if cuts else math.inf)
    return found


def confidently_wrong(p: Floats, unsafe: Bools, *, below: float = 0.1) -> float:
    """Return which share of verdicts with p under ``below`` are of unsafe scenes; NaN of none."""
    sure = p < below
    return float(unsafe[sure].mean()) if sure.any() else float("nan")
