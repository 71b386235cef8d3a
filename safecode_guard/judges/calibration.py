"""Calibration: what a judge's probabilities are worth, measured once, kept in a file, applied.

A calibration belongs to one judge, asked in one way: its id names the weights, its prompt version
the question. It is refused for any other. It moves probabilities and never the order of two scenes,
so it makes a judge honest about how sure it is, and no better at telling scenes apart.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from safecode_guard.errors import JudgeError, PolicyError
from safecode_guard.judges.labels import log_odds
from safecode_guard.judges.protocol import (
    BaseJudge,
    BatchJudge,
    Judge,
    JudgeAbilities,
    JudgeRequest,
)
from safecode_guard.judges.scope import Scope
from safecode_guard.verdict import Judgement

Probability = Annotated[float, Field(ge=0, le=1)]
TEMPERATURES: Final = (1e-3, 1e3)
"""Beyond them nothing of a judge's probabilities would be left."""
MOST_BIAS: Final = 25.0
"""In log-odds. A judge is never surer than 21: beyond that all scenes would be one."""


class Calibration(BaseModel):
    """What was fitted on labelled scenes.

    Example:
        >>> made = Calibration(judge_id="j", prompt_version="1", temperature=2.0, bias=0.0)
        >>> round(made.applied(0.9), 3)
        0.75
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    judge_id: str
    prompt_version: str
    temperature: float = Field(ge=TEMPERATURES[0], le=TEMPERATURES[1])
    bias: float = Field(ge=-MOST_BIAS, le=MOST_BIAS)
    """Log-odds taken off the unsafe side."""
    safe: Probability = 0.45
    """Threshold at or below which, at the risk aimed at, a scene may be called safe."""
    unsafe: Probability = 0.55
    """Threshold at or above which, at the rate of false alarms aimed at, it is called unsafe."""
    target_fpr: Probability = 0.05
    target_risk: Probability = 0.05
    examples: int = Field(default=0, ge=0)
    data: str = ""
    """What it was fitted on."""
    scope: Scope | None = None
    """Beyond it nothing is called safe; None: that is not looked at."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.safe > self.unsafe:
            raise ValueError("safe must not be above unsafe")
        return self

    @property
    def id(self) -> str:
        """A digest of all of it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def applied(self, p: float) -> float:
        """Return a calibrated probability: ``sigmoid((logit p - bias) / temperature)``."""
        odds = (log_odds(p) - self.bias) / self.temperature
        return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a calibration from its file.

        Raises:
            PolicyError: If the file is not there, or holds none.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise PolicyError(
                f"The calibration {str(path)!r} cannot be read.",
                hint="Make it with `safecode-guard calibrate`.",
            ) from error
        except (ValidationError, ValueError) as error:
            raise PolicyError(
                f"{str(path)!r} holds no calibration.",
                hint="Make it again with `safecode-guard calibrate`.",
            ) from error


class CalibratedJudge(BaseJudge):
    """A judge whose probabilities are calibrated; all else of its findings stays.

    A judge on the guarded model keeps its open prompt: it is given the request as it is.

    Example:
        >>> judge = CalibratedJudge(judge, Calibration.read(path))      # doctest: +SKIP
    """

    def __init__(self, judge: Judge, calibration: Calibration) -> None:
        """Take the judge and its calibration.

        Raises:
            PolicyError: If the calibration is of another judge, or has a scope that the judge does
                not look at.
        """
        if calibration.judge_id != judge.id:
            raise PolicyError(
                f"The calibration is of the judge {calibration.judge_id!r}, not of {judge.id!r}.",
                hint="Calibrate this judge, with these weights: `safecode-guard calibrate`.",
            )
        if calibration.scope is not None and getattr(judge, "scope", None) != calibration.scope:
            raise PolicyError(
                f"The calibration has a scope, and the judge {judge.id!r} does not look at it.",
                hint="Give it to the judge (scope=...), or calibrate without --scope.",
            )
        self.calibration = calibration
        self.members = (judge,)
        self._calibration_id = calibration.id
        self.id = f"{judge.id}+cal:{calibration.id}"

    @property
    def prompt_version(self) -> str:  # type: ignore[override]  # it follows the member's
        """The member's."""
        return self.members[0].prompt_version

    @property
    def abilities(self) -> JudgeAbilities:  # type: ignore[override]
        """The member's."""
        return self.members[0].abilities

    def judge(self, request: JudgeRequest) -> Judgement:
        """Judge one request; raises as the member does.

        Raises:
            JudgeError: If the member was asked another question than the one calibrated.
        """
        return self._calibrated(self.members[0].judge(request))

    async def ajudge(self, request: JudgeRequest) -> Judgement:
        """Judge one request without blocking the event loop; raises as `judge` does."""
        return self._calibrated(await self.members[0].ajudge(request))

    def judge_many(self, requests: list[JudgeRequest]) -> list[Judgement]:
        """Judge requests in one batch, if the member can; raises as `judge` does."""
        member = self.members[0]
        if isinstance(member, BatchJudge):
            return [self._calibrated(found) for found in member.judge_many(requests)]
        return [self.judge(request) for request in requests]

    def _calibrated(self, found: Judgement) -> Judgement:
        asked = found.prompt_version
        if found.failed is None and asked != self.calibration.prompt_version:
            raise JudgeError(
                f"The judge was asked prompt {asked!r}, and calibrated for another.",
                hint="Calibrate it again: `safecode-guard calibrate`.",
                reason="the judge was asked another question than the one it was calibrated on",
            )
        p = found.p_unsafe
        update = {
            "judge_id": self.id,
            "p_unsafe": None if p is None else self.calibration.applied(p),
            "calibration_id": self._calibration_id,
        }
        return found.model_copy(update=update)
