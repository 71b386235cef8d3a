"""What a strategy is: an edit of the logits, or a plan that edits the turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from safecode_guard.models.families import Family
from safecode_guard.models.protocol import Vocabulary
from safecode_guard.steering.safecode.parameters import SteeringParameters
from safecode_guard.taxonomy import Label
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import Judgement

Direction = Literal["boost", "suppress"]
"""Whether refusals are made more or less likely."""


@dataclass(frozen=True)
class SteeringContext:
    """What a strategy knows of the turn it is to steer."""

    label: Label | None
    direction: Direction
    certainty: float
    """How sure the judge is, |2 p_unsafe - 1| in [0, 1]; 0 in the band of the undecided."""
    judgement: Judgement
    parameters: SteeringParameters
    vocabulary: Vocabulary
    family: Family
    seed: int


@runtime_checkable
class LogitsStrategy(Protocol):
    """Edits next-token logits during the first ``steps`` tokens of one answer (one row).

    ``views`` is 2 if the strategy contrasts the image with a second view of it, else 1.
    ``max_tokens`` caps the answer; None leaves the caller's budget alone.
    """

    @property
    def steps(self) -> int:
        """Number of guided tokens."""

    @property
    def views(self) -> Literal[1, 2]:
        """Number of views each guided step needs."""

    @property
    def max_tokens(self) -> int | None:
        """Cap on the answer's length."""

    def adjust(self, step: int, logits: Tensor, ids: Tensor, so_far: Tensor) -> Tensor:
        """Return the steered logits of one step.

        Args:
            step: Number of tokens already generated.
            logits: float32 [views, n]; row 0 is the real image, row 1 the second view.
            ids: int64 [n], the token each column stands for.
            so_far: int64 [step], the tokens generated so far.

        Returns:
            float32 [n].
        """


@runtime_checkable
class TurnPlan(Protocol):
    """Edits the prompt and leaves the logits alone."""

    def edit(self, turn: Turn) -> Turn:
        """Return the turn that is answered instead."""


class Strategy(Protocol):
    """What the guard is given: makes the steering of one turn.

    ``id`` enters the policy's digest when the object is the user's own.
    """

    id: str

    def prepare(self, context: SteeringContext) -> LogitsStrategy | TurnPlan | None:
        """Return how to steer this turn; None to leave it alone."""
