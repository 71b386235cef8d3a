"""Guided steps of SafeCoDe: which tokens are pushed by recipe ``paper`` and recipe ``guarded``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from safecode_guard.models.protocol import Step
from safecode_guard.steering.safecode.contrast import Stages, steer
from safecode_guard.steering.safecode.record import SafeCoDeRecord
from safecode_guard.steering.safecode.trie import RefusalTrie, flat, spread
from safecode_guard.turns.turn import Turn


class AsRecorded:
    """How long guidance and the answer last: as the record says."""

    record: SafeCoDeRecord

    @property
    def steps(self) -> int:
        """Most tokens that are guided, T."""
        return self.record.steps

    @property
    def max_tokens(self) -> int | None:
        """The recipe's cap on the answer's length."""
        return self.record.max_tokens

    def done(self, so_far: Sequence[int]) -> bool:
        """Return whether T tokens have been guided."""
        return len(so_far) >= self.steps


@dataclass(frozen=True)
class GuidedSteps(AsRecorded):
    """Contrast, normalise, modulate, mask; here without any token to push.

    What differs between the recipes is the set R of refusal tokens.
    """

    record: SafeCoDeRecord
    size: int
    """Width of the vocabulary."""
    second: Turn | None = field(default=None, kw_only=True)
    """The turn with second views of its pictures; None: there is nothing to contrast."""

    def shares(self, so_far: Sequence[int]) -> Mapping[int, float]:
        """Return R after a text: each token with its share of the push."""
        return {}

    def adjust(self, step: Step) -> Tensor:
        """Return the steered logits [n]; see `LogitsStrategy.adjust`."""
        return self.stages(step).steered

    def stages(self, step: Step) -> Stages:
        """Return the logits after each stage, for traces."""
        return self._steered(step, step.so_far.tolist())

    def _steered(self, step: Step, so_far: Sequence[int]) -> Stages:
        """Return the stages of a step, with the push that belongs to a text."""
        record = self.record
        shares = self.shares(so_far) if record.push else {}
        return steer(
            step.logits,
            record.push * spread(shares, step.ids, size=self.size) if shares else None,
            alpha=record.alpha,
            normalise=record.normalise or "none",
            top_k=record.top_k or step.ids.numel(),
            plausibility=record.plausibility,
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

    Rescaled contrast and plausibility cut come with the recipe's parameters, and the push has
    been scaled by the judge's certainty. For stems ("I") see `trie`. Guided are the first T tokens
    of the visible answer, those before its first word not counted, and then as many more, up to
    ``most_steps``, as the text stands within a refusal. A model's reasoning is left alone, or
    steered like an answer of its own.
    """

    trie: RefusalTrie

    def done(self, so_far: Sequence[int]) -> bool:
        """Return whether the visible answer has got its guided tokens and stands in no refusal."""
        end = self.trie.reasoning.end(so_far)
        return end is not None and self._over(so_far[end:])

    def shares(self, so_far: Sequence[int]) -> Mapping[int, float]:
        """Return the children of the trie's node; stems hold back when refusals are suppressed."""
        weight = self.record.root_weight
        return self.trie.shares(so_far, root_weight=1.0 if weight is None else weight)

    def stages(self, step: Step) -> Stages:
        """Return the logits after each stage; the clean ones where reasoning is left alone."""
        so_far = step.so_far.tolist()
        end = self.trie.reasoning.end(so_far)
        if end is not None:
            return self._steered(step, so_far[end:])
        begun = self.trie.reasoning.begin(so_far)
        if (
            self.record.reasoning == "steer"
            and begun is not None
            and not self._over(so_far[begun:])
        ):
            return self._steered(step, so_far[begun:])
        return Stages(step.logits[0], step.logits[0], step.logits[0])

    def _over(self, so_far: Sequence[int]) -> bool:
        """Return whether guidance of a text, an answer or its reasoning, is over."""
        written = self.trie.written(so_far)
        if written < self.record.steps:
            return False
        return written >= (self.record.most_steps or 0) or not self.trie.inside(so_far)
