"""The strategy ``ras``: first tokens are drawn towards a refusal, by how risky the turn looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from safecode_guard.models.protocol import Needs, Step
from safecode_guard.risk.arithmetic import blended
from safecode_guard.risk.measure import Risk, risks
from safecode_guard.risk.prototypes import Prototypes
from safecode_guard.steering.protocol import SteeringContext


@dataclass(frozen=True)
class Blend:
    """Draws the first tokens' states towards the prototypes': ``h <- h + c (mu - h)``."""

    prototypes: Prototypes
    share: float
    """c, in [0, 1]."""
    second: None = None
    max_tokens: None = None

    @property
    def steps(self) -> int:
        """As many tokens as there are prototypes."""
        return int(self.prototypes.logits.shape[0])

    def done(self, so_far: Sequence[int]) -> bool:
        """Return whether each prototype has had its token."""
        return len(so_far) >= self.steps

    def adjust(self, step: Step) -> Tensor:
        """Return ``(1 - c) z + c W mu_t`` [n]."""
        z = step.logits[0]
        prototype = self.prototypes.logits[step.index].to(z.device)[step.ids.to(z.device)]
        return blended(z, prototype, share=self.share, cap=self.prototypes.fitted.cap)


class Ras:
    """Finds a turn's risk by two questions to the guarded model, and steers by it.

    The verdict decides whether a turn is guided at all; how far, the model's own risk does, in
    either direction. If RAS's judge with the same prototypes made the verdict, its risk is taken
    and the model is asked nothing more.

    Example:
        >>> SafeCoDeGuard(model=model, policy={                          # doctest: +SKIP
        ...     "decoding": {"strategy": "ras", "prototypes": "ras.safetensors"}})
    """

    id = "ras"
    needs = Needs()

    def __init__(self, prototypes: Prototypes) -> None:
        self.prototypes = prototypes
        self._digest = prototypes.id

    def prepare(self, context: SteeringContext) -> Blend:
        """Return the blend of one turn.

        Raises:
            ModelError: If the model cannot be asked for the turn's risk.
        """
        return Blend(self.prototypes, self._share(context))

    def record(self, context: SteeringContext) -> Mapping[str, Any]:
        """Return c, what it came from, and which prototypes."""
        share = self._share(context)
        found: Risk | None = context.notes.get(self.id)
        cap = self.prototypes.fitted.cap
        return {
            "share": share,
            **({"similarity": found.similarity} if found else {}),
            **({"cap": cap} if cap is not None else {}),
            "prototypes": self._digest,
        }

    def _share(self, context: SteeringContext) -> float:
        judged = context.judgement
        if judged.judge_id == f"ras:{self._digest}" and judged.p_unsafe is not None:
            return judged.p_unsafe
        if self.id not in context.notes:
            (context.notes[self.id],) = risks(context.probe, [context.turn], self.prototypes)
        found: Risk = context.notes[self.id]
        return found.certainty
