"""What a strategy is: an edit of the logits, or a plan that edits the turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from PIL import Image

from safecode_guard.models.families import Family
from safecode_guard.models.probing import Probe, Probed
from safecode_guard.models.protocol import LogitsStrategy, Needs, Step, Vocabulary
from safecode_guard.taxonomy import Label
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import Judgement

__all__ = [
    "Direction",
    "LogitsStrategy",
    "Needs",
    "Probe",
    "Probed",
    "SteeringContext",
    "Step",
    "Strategy",
    "TurnPlan",
]

Direction = Literal["boost", "suppress"]
"""Whether refusals are made more or less likely."""


@dataclass(frozen=True)
class SteeringContext:
    """What a strategy knows of the turn it is to steer."""

    label: Label | None
    direction: Direction
    certainty: float
    """How sure the judge is, |2 p_unsafe - 1| in [0, 1]; 1 for a turn without a clear label that is
    guided all the same: it is steered as if it were unsafe."""
    judgement: Judgement
    turn: Turn
    vocabulary: Vocabulary
    family: Family
    seed: int
    working_size: Callable[[Image.Image], tuple[int, int]]
    """(width, height) to which the model's preprocessing resizes a picture."""
    probe: Probe
    insistence: float = 1.0
    """How many times harder than usual to push: above 1 for a second answer, as the first one did
    not obey. A strategy whose record stays the same for it is not asked for a second one."""
    notes: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What a strategy found out of this turn in `prepare` and needs for its record, by its id; so
    that the model is not asked twice."""


@runtime_checkable
class TurnPlan(Protocol):
    """Edits the prompt and leaves the logits alone."""

    def edit(self, turn: Turn) -> Turn:
        """Return the turn that is answered instead."""


class Strategy(Protocol):
    """What the guard is given: makes the steering of one turn.

    ``id`` enters the policy's digest when the object is the user's own.

    Example:
        >>> class Shout:
        ...     id = "shout"
        ...     needs = Needs()
        ...     def prepare(self, context):
        ...         return None
        ...     def record(self, context):
        ...         return {}
    """

    id: str

    @property
    def needs(self) -> Needs:
        """What any turn of this strategy may ask of the engine, known before any verdict."""

    def prepare(self, context: SteeringContext) -> LogitsStrategy | TurnPlan | None:
        """Return how to steer this turn; None to leave it alone."""

    def record(self, context: SteeringContext) -> Mapping[str, Any]:
        """Return the parameters of this turn's steering as used, and nothing that was not.

        A JSON-able mapping from which an engine of another process can steer the same way: equal
        records, equal steering.
        """
