"""A trace of guided steps: what each stage did to the likeliest tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from safecode_guard.models.protocol import LogitsStrategy, Step, Vocabulary
from safecode_guard.turns.turn import Turn

if TYPE_CHECKING:
    from torch import Tensor

    from safecode_guard.steering.safecode.contrast import Stages


@runtime_checkable
class Staged(Protocol):
    """A strategy that can show its stages. Those that cannot are traced by their result alone."""

    def stages(self, step: Step) -> Stages:
        """Return the logits after each stage."""


@dataclass(frozen=True)
class TokenScore:
    """A token with its logit and its probability at one stage."""

    id: int
    text: str
    logit: float
    p: float


@dataclass(frozen=True)
class StepTrace:
    """The likeliest tokens of one guided step at each stage, best first."""

    step: int
    clean: tuple[TokenScore, ...]
    """z, of the real image."""
    second: tuple[TokenScore, ...]
    """z~, of the second view; empty if there is none."""
    contrasted: tuple[TokenScore, ...]
    """z_cd; empty if the strategy does not show its stages."""
    modulated: tuple[TokenScore, ...]
    """After the push on refusal tokens; empty likewise."""
    steered: tuple[TokenScore, ...]
    """What the token was chosen from, before the caller's sampling parameters."""
    chosen: int | None = None
    """The token that followed; None while it is not known."""
    chosen_text: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain JSON types."""
        return asdict(self)


class Traced:
    """A logits strategy that records what another one does; the tokens stay the same.

    The token chosen at a step is read from the next call's ``so_far``; the last guided one comes
    from the answer, given to `steps_traced`. One object traces one answer.

    Example:
        >>> traced = Traced(strategy.prepare(context), vocabulary)      # doctest: +SKIP
        >>> ...                                                         # doctest: +SKIP
        >>> [step.to_json() for step in traced.steps_traced(answer)]    # doctest: +SKIP
    """

    def __init__(self, strategy: LogitsStrategy, vocabulary: Vocabulary, *, top: int = 5) -> None:
        """Wrap a strategy; ``top`` tokens are kept of each stage."""
        self.steps: int = strategy.steps
        self.second: Turn | None = strategy.second
        self.max_tokens: int | None = strategy.max_tokens
        self._strategy = strategy
        self._vocabulary = vocabulary
        self._top = top
        self._recorded: list[StepTrace] = []

    def done(self, so_far: Sequence[int]) -> bool:
        """Return whether the wrapped strategy has done its part."""
        return self._strategy.done(so_far)

    def adjust(self, step: Step) -> Tensor:
        """Return the wrapped strategy's logits [n], and record the step."""
        steered = self._strategy.adjust(step)
        stages = self._strategy.stages(step) if isinstance(self._strategy, Staged) else None
        logits, ids = step.logits, step.ids
        record = StepTrace(
            step=step.index,
            clean=self._best(logits[0], ids),
            second=self._best(logits[1], ids) if logits.shape[0] > 1 else (),
            contrasted=self._best(stages.contrasted, ids) if stages else (),
            modulated=self._best(stages.modulated, ids) if stages else (),
            steered=self._best(steered, ids),
        )
        self._recorded = [*self._filled(step.so_far.tolist()[: step.index]), record]
        return steered

    def steps_traced(self, answer: Sequence[int] = ()) -> tuple[StepTrace, ...]:
        """Return the recorded steps.

        Args:
            answer: The finished answer's tokens, from which the last chosen token is filled in.
        """
        return tuple(self._filled(answer))

    def _filled(self, tokens: Sequence[int]) -> list[StepTrace]:
        """Return the records with the tokens that were chosen, as far as ``tokens`` tells."""
        return [
            replace(r, chosen=tokens[r.step], chosen_text=self._vocabulary.decode([tokens[r.step]]))
            if r.step < len(tokens)
            else r
            for r in self._recorded
        ]

    def _best(self, scores: Tensor, ids: Tensor) -> tuple[TokenScore, ...]:
        values, columns = scores.topk(min(self._top, scores.numel()))
        tokens = ids[columns].tolist()
        probabilities = scores.softmax(-1)[columns].tolist()
        return tuple(
            TokenScore(token, self._vocabulary.decode([token]), logit, p)
            for token, logit, p in zip(tokens, values.tolist(), probabilities, strict=True)
            if logit > float("-inf")
        )
