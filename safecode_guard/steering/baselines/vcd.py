"""The baseline VCD (arXiv 2311.16922): contrast with a noised view at every token, no verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from torch import Tensor

from safecode_guard.models.protocol import Needs, Step
from safecode_guard.policy import DecodingPolicy
from safecode_guard.steering.protocol import SteeringContext
from safecode_guard.steering.safecode.contrast import steer
from safecode_guard.steering.safecode.parameters import SteeringParameters, resolve
from safecode_guard.steering.safecode.views import second_views_in
from safecode_guard.turns.turn import Turn

DEFAULTS: Final[Mapping[str, Any]] = {"alpha": 0.5, "plausibility": 0.1, "sigma": 1.0}
"""VCD's own weight and cut. Its noise is that of a diffusion, half way; ours is Gaussian on pixels,
at a strength that leaves as little of the picture."""
_EVERY: Final = 1_000_000


@dataclass(frozen=True)
class Contrasted:
    """``(1 + a) z - a z~`` among the plausible tokens, to the answer's end."""

    alpha: float
    plausibility: float
    second: Turn | None
    max_tokens: None = None
    steps: int = _EVERY

    def done(self, so_far: Sequence[int]) -> bool:
        """Return False: every token is contrasted."""
        return False

    def adjust(self, step: Step) -> Tensor:
        """Return the contrasted logits [n]."""
        stages = steer(
            step.logits,
            None,
            alpha=self.alpha,
            normalise="vcd",
            top_k=step.ids.numel(),
            plausibility=self.plausibility,
        )
        return stages.steered


class Vcd:
    """The strategy ``vcd``: against hallucination, and blind to safety.

    Costs a second prompt with its pictures, and two rows for every token.

    Example:
        >>> Vcd.of(DecodingPolicy(strategy="vcd")).parameters.alpha
        0.5
    """

    id = "vcd"
    needs = Needs(views=2)

    def __init__(self, parameters: SteeringParameters) -> None:
        self.parameters = parameters

    @classmethod
    def of(cls, decoding: DecodingPolicy) -> Self:
        """Return the strategy with VCD's values, and those that a policy sets in their place."""
        names = (*DEFAULTS, "noise_order", "reference_view")
        given = decoding.model_dump(include=set(names), exclude_none=True)
        return cls(resolve(DecodingPolicy(**{**DEFAULTS, **given}), {}))

    def prepare(self, context: SteeringContext) -> Contrasted | None:
        """Return the contrast of one turn; None without pictures."""
        if not context.turn.images or self.parameters.alpha == 0:
            return None
        second = second_views_in(context, self.parameters)
        return Contrasted(self.parameters.alpha, self.parameters.plausibility, second)

    def record(self, context: SteeringContext) -> Mapping[str, Any]:
        """Return the values of the contrast."""
        if not context.turn.images or self.parameters.alpha == 0:
            return {}
        names = {"alpha", "plausibility", "reference_view"}
        if self.parameters.reference_view == "noise":
            names |= {"sigma", "noise_order"}
        return self.parameters.model_dump(include=names) | {"seed": context.seed}
