"""Guided steps of SafeCoDe: which tokens are pushed in mode ``paper`` and in mode ``guarded``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from safecode_guard.steering.safecode.contrast import Stages, steer
from safecode_guard.steering.safecode.parameters import SteeringParameters
from safecode_guard.steering.safecode.trie import RefusalTrie, flat, spread


@dataclass(frozen=True)
class GuidedSteps(ABC):
    """Contrast, normalise, modulate, mask; what differs is the set R of refusal tokens."""

    parameters: SteeringParameters
    push: float
    """What R is pushed by: +lambda_boost or -lambda_supp."""
    size: int
    """Width of the vocabulary."""
    max_tokens: int | None = field(default=None, kw_only=True)

    @property
    def steps(self) -> int:
        """Number of guided tokens, T."""
        return self.parameters.guided_steps

    @property
    def views(self) -> Literal[1, 2]:
        """Two unless alpha is 0."""
        return 2 if self.parameters.alpha > 0 else 1

    @abstractmethod
    def shares(self, so_far: Sequence[int]) -> Mapping[int, float]:
        """Return R after a text: each token with its share of the push."""

    def adjust(self, step: int, logits: Tensor, ids: Tensor, so_far: Tensor) -> Tensor:
        """Return the steered logits [n]; see `LogitsStrategy.adjust`."""
        return self.stages(step, logits, ids, so_far).steered

    def stages(self, step: int, logits: Tensor, ids: Tensor, so_far: Tensor) -> Stages:
        """Return the logits after each stage, for traces."""
        shares = self.shares(so_far.tolist()) if self.push else {}
        return steer(
            logits,
            self.push * spread(shares, ids, size=self.size) if shares else None,
            alpha=self.parameters.alpha,
            normalise=self.parameters.normalise,
            top_k=self.parameters.top_k,
            plausibility=self.parameters.plausibility,
        )


@dataclass(frozen=True)
class PaperSteering(GuidedSteps):
    """The paper's two stages, with one flat set R at every guided step.

    The paper does not say how phrases become R. Here R holds the tokens that are a whole first
    word ("I", "Sorry") or a whole refusing word ("sorry", "cannot"), and none of the " to" and
    "," around them.
    """

    refusals: frozenset[int]

    def shares(self, so_far: Sequence[int]) -> Mapping[int, float]:
        """Return the whole push for each token of R, whatever the text."""
        return flat(self.refusals)


@dataclass(frozen=True)
class GuardedSteering(GuidedSteps):
    """The project's default: only tokens by which the text begins or continues a refusal.

    Rescaled contrast and plausibility cut come with the mode's parameters, and the push has been
    scaled by the judge's certainty. For stems ("I") see `trie`.
    """

    trie: RefusalTrie

    def shares(self, so_far: Sequence[int]) -> Mapping[int, float]:
        """Return the children of the trie's node; stems hold back when refusals are suppressed."""
        root_weight = 1.0 if self.push > 0 else self.parameters.root_weight
        return self.trie.shares(so_far, root_weight=root_weight)
