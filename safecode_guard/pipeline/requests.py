"""What goes into the pipeline and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Event

from safecode_guard.errors import GuardError
from safecode_guard.models.protocol import Constraint, Sampling, Tool
from safecode_guard.steering.trace import StepTrace
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import Judgement, Verdict


def _unheard(verdict: Verdict) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class TurnRequest:
    """One turn to answer."""

    turn: Turn
    sampling: Sampling
    tools: tuple[Tool, ...] = ()
    constraint: Callable[[int], Constraint] | None = None
    """Makes the grammar of a forced schema or tool, given the budget of tokens.

    Such an answer cannot be steered.
    """
    refusal: Callable[[int], Constraint] | None = None
    """Makes the grammar's refusal branch, where the caller allowed one."""
    judgement: Judgement | None = None
    """Made beforehand by a judge that answers asynchronously."""
    on_verdict: Callable[[Verdict], None] = _unheard
    """Told each verdict as soon as it is made, before any token."""
    run_id: str | None = None
    deadline: float | None = None
    """In seconds of ``time.monotonic``."""
    trace: bool = False
    cancelled: Event = field(default_factory=Event, compare=False)


@dataclass(frozen=True)
class TurnResult:
    """The answer to one turn."""

    text: str
    finish: str
    """``stop``, ``length``, or ``content_filter`` if the guard answered instead of the model."""
    prompt_tokens: int
    tokens: tuple[int, ...]
    verdicts: tuple[Verdict, ...] = ()
    trace: tuple[StepTrace, ...] = ()
    refused: bool = False
    """The answer is the grammar's refusal branch."""

    @property
    def withheld(self) -> bool:
        """Whether the text is the guard's own, given instead of the model's."""
        return self.finish == "content_filter"


TurnEvent = Verdict | str | TurnResult | GuardError
"""In order: the verdict, pieces of text, and the result or the error that ended the turn."""


def collected(events: Iterable[tuple[int, TurnEvent]], count: int) -> list[TurnResult | GuardError]:
    """Return how each of ``count`` turns ended, from the events of all of them."""
    ends = {i: event for i, event in events if isinstance(event, TurnResult | GuardError)}
    return [ends[i] for i in range(count)]
