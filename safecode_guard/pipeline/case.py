"""One request on its way through the stages of a guarded turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safecode_guard.models.protocol import Delta, Job, LogitsStrategy, Needs
from safecode_guard.pipeline.examiner import Finding, Subject
from safecode_guard.pipeline.requests import TurnRequest, TurnResult
from safecode_guard.steering.trace import Traced
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import DecodingRecord, FollowUp, Verdict


@dataclass(eq=False)
class Case:
    """A request, and what has become of it so far."""

    index: int
    """Of the request among those that were handed in together."""
    request: TurnRequest
    finding: Finding | None = None
    """None: the turn passes unjudged."""
    verdict: Verdict | None = None
    turn: Turn | None = None
    """What is answered, if a plan edited the request's turn."""
    strategy: LogitsStrategy | None = None
    needs: Needs = field(default_factory=Needs)
    record: Mapping[str, Any] | None = None
    refuse: bool = False
    """Only the grammar's refusal branch may be decoded."""
    railed: bool = False
    """The finished answer has to be judged before any of it may leave."""
    held: bool = False
    """None of the answer may leave before it is finished: it is railed, or another may follow."""
    obeyed: bool | None = None
    """Whether the answer did what it was steered to; None: not told."""
    followed_by: FollowUp | None = None
    second: DecodingRecord | None = None
    """How the second answer is steered, as the first did not obey; None: there is no second."""
    text: str = ""
    answered: bool = False
    """The engine is done with it."""
    ended: bool = False
    """Its result or its error has been handed out."""

    @property
    def subject(self) -> Subject:
        """The turn as it is examined."""
        request = self.request
        return Subject("input", request.turn, deadline=request.deadline, run=request.run)

    @property
    def stops(self) -> bool:
        """Whether the finding ends the turn before anything is generated."""
        return self.finding is not None and self.finding.decision.stops

    def job(self, index: int) -> Job:
        """Return what the engine is to do, for the session's turn of this index."""
        request = self.request
        return Job(
            index,
            self.turn or request.turn,
            request.sampling,
            strategy=self.strategy,
            needs=self.needs,
            record=self.record,
            constraint=request.refusal if self.refuse else request.constraint,
            options=request.options,
            live=request.live and not self.held,
            held=self.held,
            deadline=request.deadline,
            cancelled=request.cancelled,
        )

    def result(self, delta: Delta) -> TurnResult:
        """Return the finished answer that the last delta completes."""
        traced = self.strategy
        return TurnResult(
            text=self.text,
            finish=str(delta.finish),
            prompt_tokens=delta.prompt_tokens,
            tokens=delta.tokens,
            verdicts=(self.verdict,) if self.verdict else (),
            trace=traced.steps_traced(delta.tokens) if isinstance(traced, Traced) else (),
            refused=self.refuse,
            native=delta.native,
        )
