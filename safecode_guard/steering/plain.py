"""The strategy that leaves the model alone."""

from __future__ import annotations

from safecode_guard.steering.protocol import SteeringContext


class Plain:
    """The baseline: the model answers as it would without a guard.

    Example:
        >>> Plain().id
        'plain'
    """

    id = "plain"

    def prepare(self, context: SteeringContext) -> None:
        """Return None: nothing is steered."""
