"""Asking an engine something of one's own: greedily, unguarded, with the logits it chose from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from safecode_guard.errors import LogitsUnavailable
from safecode_guard.models.protocol import Engine, Job, Needs, Sampling, Step
from safecode_guard.turns.turn import Turn

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Probed:
    """What a model answered to a question that is not the user's."""

    text: str
    tokens: tuple[int, ...] = ()
    hidden: Tensor | None = None
    """float [tokens, d], the states from which each token was chosen, if they were asked for."""
    logits: Tensor | None = None
    """float32 [n, vocabulary], from which each of the first n tokens was chosen, if they were asked
    for; fewer where the answer is shorter."""


class Probe(Protocol):
    """Asks the guarded model, unguarded and greedily."""

    def __call__(
        self,
        turns: Sequence[Turn],
        *,
        max_tokens: int = 32,
        hidden_layer: int | None = None,
        first_logits: int = 0,
    ) -> list[Probed]:
        """Return the answers to some turns, in order.

        Args:
            turns: The questions, each a conversation of its own.
            max_tokens: Longest answer.
            hidden_layer: Layer whose states are asked for, as `Needs` counts them.
            first_logits: Of how many first tokens the logits are asked for. Not with a layer.

        Raises:
            ModelError: If the model cannot be asked, or keeps states or logits to itself.
        """


@dataclass(frozen=True)
class Watching:
    """A strategy that changes nothing and keeps the logits that it is shown."""

    steps: int
    kept: list[Tensor] = field(default_factory=list)
    second: None = None
    max_tokens: None = None

    def done(self, so_far: Sequence[int]) -> bool:
        """Return whether as many tokens were seen as were asked for."""
        return len(so_far) >= self.steps

    def adjust(self, step: Step) -> Tensor:
        """Return the logits [n] as they are."""
        self.kept.append(step.logits[0].clone())
        return step.logits[0]


def probe(
    engine: Engine,
    turns: Sequence[Turn],
    *,
    max_tokens: int = 32,
    hidden_layer: int | None = None,
    first_logits: int = 0,
    together: bool = False,
) -> list[Probed]:
    """Return an engine's answers to some turns, in order; see `Probe`.

    Args:
        engine: What is asked.
        turns: The questions.
        max_tokens: As for `Probe`, like the two that follow.
        hidden_layer: Not with ``first_logits``.
        first_logits: See `Probe`.
        together: Ask those that fit together in one batch, and not one after another.

    Raises:
        ValueError: If states and logits are asked for at once.
        ModelError: If the model cannot be asked, or keeps states or logits to itself.
    """
    if hidden_layer is not None and first_logits:
        raise ValueError("ask for states or for logits, not for both at once")
    if first_logits and not engine.abilities.logits:
        raise LogitsUnavailable(
            f"The model {engine.id!r} keeps its logits to itself.",
            hint="Guard a ChatTransformers, or use a strategy that asks for none.",
        )
    sampling = Sampling(do_sample=False, max_tokens=max_tokens)
    groups: dict[str, list[int]] = defaultdict(list)
    for i, turn in enumerate(turns):
        groups[engine.batch_key(turn, sampling, ()) if together else str(i)].append(i)
    found: dict[int, Probed] = {}
    for members in groups.values():
        jobs = [
            Job(
                row,
                turns[i],
                sampling,
                strategy=Watching(first_logits) if first_logits else None,
                needs=Needs(hidden_layer=hidden_layer),
            )
            for row, i in enumerate(members)
        ]
        found |= zip(members, _answers(engine, jobs, sampling), strict=True)
    return [found[i] for i in range(len(turns))]


def _answers(engine: Engine, jobs: Sequence[Job], sampling: Sampling) -> list[Probed]:
    """Answer jobs in one session; the first error of any is raised."""
    texts = [""] * len(jobs)
    found: dict[int, Probed] = {}
    with closing(engine.open([job.turn for job in jobs], sampling)) as session:
        for delta in session.answer(jobs):
            if delta.error is not None:
                raise delta.error
            texts[delta.index] += delta.text
            if delta.finish is not None:
                logits = _seen(jobs[delta.index])
                found[delta.index] = Probed(texts[delta.index], delta.tokens, delta.hidden, logits)
    return [found[i] for i in range(len(jobs))]


def _seen(job: Job) -> Tensor | None:
    """Return the logits [n, vocabulary] that a job's answer was chosen from."""
    import torch

    return torch.stack(job.strategy.kept) if isinstance(job.strategy, Watching) else None
