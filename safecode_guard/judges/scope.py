"""Scope: how unlike the scenes that a judge was calibrated on another scene is.

A judge is confidently wrong where a picture is unlike all that it was tried on, and its probability
does not tell. The state that the label is read from does: its Mahalanobis distance to the nearer
of two centres, those of the safe and of the unsafe scenes (Lee et al., 2018), under one covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from safecode_guard.errors import JudgeError
from safecode_guard.taxonomy import Stage

Floats = NDArray[np.float64]
Row = tuple[float, ...]


class Scope(BaseModel):
    """Where the states of a judge's calibration scenes lie.

    The covariance is kept by its largest directions and one variance for all others, so that it
    stays small for wide models and sound for few scenes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stage: Stage = "input"
    """Of the requests that it was fitted on; of those at other stages it says nothing."""
    centres: tuple[Row, ...] = Field(min_length=1)
    """Mean states, [kinds of scenes][d]."""
    directions: tuple[Row, ...] = Field(min_length=1)
    """Orthonormal, [k][d]."""
    variances: tuple[float, ...]
    """Along each direction, [k]."""
    rest: float = Field(gt=0)
    """Variance in every other direction."""
    threshold: float = Field(gt=0)
    """Squared distance beyond which a scene is out of scope."""
    share: float = Field(gt=0, lt=1)
    """Of ordinary scenes, at most that many lie beyond it: on average, for scenes like those."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        wide = {len(row) for row in (*self.centres, *self.directions)}
        if len(wide) != 1 or 0 in wide:
            raise ValueError("centres and directions must be of one width")
        if len(self.variances) != len(self.directions) or min(self.variances) <= 0:
            raise ValueError("each direction needs a variance above 0")
        return self

    def unlikeness(self, states: Sequence[Sequence[float]]) -> list[float]:
        """Return the squared distance of states [n][d] over the threshold; above 1: out of scope.

        Raises:
            JudgeError: If the states are of another width, or not finite.
        """
        given = np.asarray(states, dtype=np.float64)
        centres, directions, variances = self._arrays
        if given.ndim != 2 or given.shape[1] != centres.shape[1] or not np.isfinite(given).all():
            raise JudgeError(
                "The judge's state is none of those that its calibration knows.",
                hint="Calibrate it again: `safecode-guard calibrate --scope`.",
                reason="the judge's state does not fit its calibration",
            )
        apart = given[:, None] - centres  # [n, kinds, d]
        along = apart @ directions.T  # [n, kinds, k]
        beside = ((apart**2).sum(-1) - (along**2).sum(-1)).clip(0)
        distance = (along**2 / variances).sum(-1) + beside / self.rest
        found: list[float] = (distance.min(-1) / self.threshold).tolist()
        return found

    @cached_property
    def _arrays(self) -> tuple[Floats, Floats, Floats]:
        return np.array(self.centres), np.array(self.directions), np.array(self.variances)
