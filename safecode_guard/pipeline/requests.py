"""What goes into the guarded turn and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any

from safecode_guard.models.protocol import Constraint, Sampling, Tool
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import Verdict

if TYPE_CHECKING:
    from safecode_guard.steering.trace import StepTrace


def _unheard(verdict: Verdict) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Run:
    """The call that verdicts belong to."""

    id: str | None = None
    tell: Callable[[Verdict], None] = _unheard
    """Told each verdict as soon as it is concluded, before any token."""


@dataclass(frozen=True)
class TurnRequest:
    """One turn to answer."""

    turn: Turn
    sampling: Sampling = field(default_factory=Sampling)
    tools: tuple[Tool, ...] = ()
    constraint: Callable[[int], Constraint] | None = None
    """Makes the grammar of a forced schema or tool, given the budget of tokens."""
    refusal: Callable[[int], Constraint] | None = None
    """Makes the grammar's refusal branch, where the caller allowed one."""
    forced: bool = False
    """The answer must follow a form: it cannot be steered, and no other text can stand for it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the caller passes on to an engine that is a chat model itself."""
    run: Run = Run()
    deadline: float | None = None
    """In seconds of ``time.monotonic``, counted from the call."""
    live: bool = False
    """Somebody reads the answer piece by piece."""
    cache_scope: str | None = None
    """Whose prompt it is, where prompts are kept for later turns: nobody else continues it."""
    trace: bool = False
    cancelled: Event = field(default_factory=Event, compare=False)


@dataclass(frozen=True)
class Piece:
    """A piece of an answer as it comes."""

    text: str
    native: Any = None
    """The piece in the engine's own form."""


@dataclass(frozen=True)
class TurnResult:
    """The answer to one turn."""

    text: str
    finish: str
    """``stop``, ``length``, or ``content_filter`` if the guard answered instead of the model."""
    prompt_tokens: int = 0
    tokens: tuple[int, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    trace: tuple[StepTrace, ...] = ()
    refused: bool = False
    """The answer is the grammar's refusal branch."""
    native: Any = None
    """The whole answer in the engine's own form."""

    @property
    def withheld(self) -> bool:
        """Whether the text is the guard's own, given instead of the model's."""
        return self.finish == "content_filter"


TurnEvent = Verdict | Piece | TurnResult | Exception
"""In order: the verdict, pieces of text, and the result or the error that ended the turn."""


def collected(events: Iterable[tuple[int, TurnEvent]], count: int) -> list[TurnResult | Exception]:
    """Return how each of ``count`` turns ended, from the events of all of them."""
    ends = {i: event for i, event in events if isinstance(event, TurnResult | Exception)}
    return [ends[i] for i in range(count)]
