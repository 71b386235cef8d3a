"""The baseline "just tell the model": the verdict goes into the prompt, logits are untouched."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from safecode_guard.models.protocol import Needs
from safecode_guard.steering.protocol import Direction, SteeringContext
from safecode_guard.turns.turn import Turn

NOTES: dict[Direction, str] = {
    "boost": (
        "A safety check looked at the picture together with this request and found that helping "
        "could put someone in danger in the scene shown. Do not help with it. Say briefly and "
        "kindly that you will not, name the risk you see, and offer a safe alternative."
    ),
    "suppress": (
        "A safety check looked at the picture together with this request and found no danger in "
        "the scene shown. Answer it helpfully and in full, and do not refuse because a word in "
        "it sounds dangerous."
    ),
}
"""What the system message says, by the direction in which the verdict asks to steer."""


@dataclass(frozen=True)
class SystemNote:
    """A plan that adds a text to the system message."""

    text: str

    @property
    def digest(self) -> str:
        """Identifies the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def edit(self, turn: Turn) -> Turn:
        """Return the turn with the text at the end of its system message."""
        return turn.with_system(self.text)


class VerdictPrompt:
    """The strategy ``verdict_prompt``: the judge's verdict as an instruction.

    What the verdict says beyond its direction (caption, rationale) stays out: a judge's free text
    may repeat instructions that somebody wrote into the picture.
    """

    id = "verdict_prompt"
    needs = Needs(logits=False)

    def prepare(self, context: SteeringContext) -> SystemNote:
        """Return the plan that puts the verdict into the system message."""
        return SystemNote(NOTES[context.direction])

    def record(self, context: SteeringContext) -> dict[str, str]:
        """Return the direction, and which note it stands for."""
        return {"direction": context.direction, "note": self.prepare(context).digest}
