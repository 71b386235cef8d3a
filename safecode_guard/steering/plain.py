"""The strategy that leaves the model alone."""

from __future__ import annotations

from safecode_guard.models.protocol import Needs
from safecode_guard.steering.protocol import SteeringContext


class Plain:
    """The baseline: the model answers as it would without a guard.

    Example:
        >>> Plain().needs.logits
        False
    """

    id = "plain"
    needs = Needs(logits=False)

    def prepare(self, context: SteeringContext) -> None:
        """Return None: nothing is steered."""

    def record(self, context: SteeringContext) -> dict[str, str]:
        """Return nothing: nothing is used."""
        return {}
