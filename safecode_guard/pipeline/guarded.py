"""The guarded turn: examine it, steer it, answer it, and look at the answer once more if asked to.

There is one, for engines that can be steered and for those that can only be called, in a thread
and on an event loop. It is written as a coroutine over a `Host`, which does the waiting.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from functools import partial
from typing import TypeVar

from safecode_guard.errors import TurnTimeout
from safecode_guard.judges.protocol import OpenPrompt, judges_on
from safecode_guard.models.protocol import Delta, Engine, KeepingSession, Session
from safecode_guard.pipeline import rail
from safecode_guard.pipeline.admission import Admission, waited_too_long
from safecode_guard.pipeline.case import Case
from safecode_guard.pipeline.examiner import Examiner, Finding, Subject
from safecode_guard.pipeline.host import Host, ThisThread, drive
from safecode_guard.pipeline.obedience import Obedience
from safecode_guard.pipeline.requests import (
    Piece,
    TurnEvent,
    TurnRequest,
    TurnResult,
    collected,
)
from safecode_guard.pipeline.rules import Decision
from safecode_guard.pipeline.steering import Steering
from safecode_guard.verdict import Verdict

T = TypeVar("T")
Events = AsyncGenerator[tuple[Case, TurnEvent]]
Indexed = AsyncGenerator[tuple[int, TurnEvent]]
Finished = tuple[Case, TurnResult, Delta]
"""An answer that is looked at before its turn ends, and the delta that completed it."""


class GuardedTurns:
    """Serves turns on one engine under one policy. Holds no state of any turn."""

    def __init__(
        self,
        engine: Engine,
        examiner: Examiner,
        *,
        steering: Steering,
        admission: Admission,
    ) -> None:
        self.engine = engine
        self.examiner = examiner
        self._steering = steering
        self._admission = admission
        self._obedience = Obedience.of(examiner.policy)

    def run(self, requests: Sequence[TurnRequest]) -> list[TurnResult | Exception]:
        """Answer turns in this thread; those that fit together are decoded as one batch.

        A turn's own failure is returned in its place, so that it does not cost the others theirs.
        """
        return collected(self.events(requests), len(requests))

    def events(self, requests: Sequence[TurnRequest]) -> Generator[tuple[int, TurnEvent]]:
        """Answer turns in this thread and yield what happens; see `stream`."""
        return drive(self.stream(requests, ThisThread()))

    async def stream(self, requests: Sequence[TurnRequest], host: Host) -> Indexed:
        """Answer turns and yield what happens, with the index of the turn it happens to.

        No text of a turn comes before its verdict. Each turn ends with its result or its error.
        """
        groups: dict[str, list[Case]] = {}
        for index, request in enumerate(requests):
            case = Case(index, request)
            case.finding = self.examiner.settled(case.subject)
            key = self.engine.batch_key(request.turn, request.sampling, request.tools)
            groups.setdefault(f"{case.finding is None} {key}", []).append(case)
        for cases in groups.values():
            async with aclosing(self._served(cases, host)) as events:
                async for case, event in events:
                    case.ended = isinstance(event, TurnResult | Exception)
                    yield case.index, event

    async def _served(self, cases: list[Case], host: Host) -> Events:
        """Serve cases that can share a batch, whatever goes wrong with some of them."""
        try:
            async with aclosing(self._turn(cases, host)) as events:
                async for event in events:
                    yield event
        except Exception as error:  # what strikes them all: a full queue, a broken model
            for case in cases:
                if not case.ended:
                    yield case, error

    async def _turn(self, cases: list[Case], host: Host) -> Events:
        """One guarded turn, of all cases of a batch."""
        own = cases[0].finding is None and judges_on(self.examiner.judge_at("input"), self.engine)
        if cases[0].finding is None and not own:
            await self._examine(cases, host)  # no place is held while another judge thinks
        finished: list[Finished] = []
        if own or not all(case.stops for case in cases):
            async with aclosing(self._on_engine(cases, host, own, finished)) as events:
                async for event in events:
                    yield event
        else:
            for case in cases:
                yield await host.call(partial(self._concluded, case))
        for held in finished:
            async with aclosing(self._released(held, host)) as events:
                async for event in events:
                    yield event
        for case in cases:
            if case.stops and case.verdict is not None:
                yield case, rail.withheld(case, (case.verdict,), self.examiner.policy)

    # -- judging ------------------------------------------------------------------------------

    async def _examine(self, cases: list[Case], host: Host, session: Session | None = None) -> None:
        """Judge cases; by the engine itself, on the session on which they will be answered."""
        prompts = [
            OpenPrompt(self.engine, session, i) if session is not None else None
            for i in range(len(cases))
        ]
        subjects = [case.subject for case in cases]
        for case, finding in zip(
            cases, await self.examiner.judged(subjects, host, prompts), strict=True
        ):
            case.finding = self._fitted(case, finding)

    def _fitted(self, case: Case, finding: Finding) -> Finding:
        """Return the finding for an answer that must follow a form, and so cannot refuse."""
        request, decision = case.request, finding.decision
        forced = request.forced or request.constraint is not None
        if not forced or decision.stops:
            return finding
        if decision.label == "safe":
            return replace(finding, decision=replace(decision, action="pass"))
        if request.refusal is None:
            return replace(finding, decision=replace(decision, action="block"))
        case.refuse = True
        return replace(finding, decision=replace(decision, action="guide"))

    def _concluded(self, case: Case) -> tuple[Case, TurnEvent]:
        """Conclude a case's verdict, and prepare its steering first: the verdict records it."""
        finding = case.finding
        assert finding is not None
        decoding = None
        steered = finding.decision.action == "guide" and not case.refuse
        try:
            if self.engine.abilities.takes_files:
                for image in case.request.turn.images:
                    image.file  # noqa: B018  what is handed on is made before it is recorded
            if steered and finding.judgement is not None:
                decoding = self._steering.prepare(case)
            case.verdict = self.examiner.conclude(case.subject, finding, decoding=decoding)
        except Exception as error:  # strategies and sinks are foreign code: nothing is answered
            case.finding = replace(finding, decision=Decision(None, "block", degraded=True))
            return case, error
        return case, case.verdict

    # -- answering ----------------------------------------------------------------------------

    async def _on_engine(
        self, cases: list[Case], host: Host, own: bool, finished: list[Finished]
    ) -> Events:
        """Do what holds a place on the engine: judge there, prepare the steering, answer."""
        late: list[Case] = []
        async with aclosing(self._placed(cases, late, host, own, finished)) as events:
            async for event in events:
                yield event
        for case in late:
            case.finding = Finding(Decision(None, "block", degraded=True))
            yield case, waited_too_long()

    async def _placed(
        self,
        cases: list[Case],
        late: list[Case],
        host: Host,
        own: bool,
        finished: list[Finished],
    ) -> Events:
        """Wait for a place; cases whose time is up meanwhile are put into ``late``."""
        waiting, placed = list(cases), False
        while waiting and not placed:
            deadline = min(
                (c.request.deadline for c in waiting if c.request.deadline), default=None
            )
            try:
                async with host.place(self._admission, deadline):
                    placed = True
                    async with aclosing(self._held(waiting, host, own, finished)) as events:
                        async for event in events:
                            yield event
            except TurnTimeout:
                now = time.monotonic()
                past = [c for c in waiting if c.request.deadline and c.request.deadline <= now]
                if placed or not past:
                    raise
                late += past
                waiting = [case for case in waiting if case not in past]

    async def _held(
        self, cases: list[Case], host: Host, own: bool, finished: list[Finished]
    ) -> Events:
        """Serve cases while a place is held."""
        session = self._opened(cases)
        try:
            if own:
                await self._examine(cases, host, session)
            for case in cases:
                if case.finding is not None and _is_told(case.finding):
                    yield await host.call(partial(self._concluded, case))
                case.railed = rail.applies(case, self.examiner.policy)
                case.held = case.railed or self._obedience.holds(case)
            async with aclosing(self._decoded(cases, session, host, finished)) as events:
                async for event in events:
                    yield event
        finally:
            session.close()
        if self.examiner.policy.on_disobeyed == "retry":
            async with aclosing(self._second_answers(finished, host)) as events:
                async for event in events:
                    yield event

    def _opened(self, cases: Sequence[Case]) -> Session:
        first = cases[0].request
        turns = [case.request.turn for case in cases]
        session = self.engine.open(turns, first.sampling, tools=first.tools)
        if isinstance(session, KeepingSession):
            scopes = [case.request.cache_scope for case in cases]
            session.keep(scopes, limit=self.examiner.policy.prefix_cache_bytes)
        return session

    async def _decoded(
        self, cases: Sequence[Case], session: Session, host: Host, finished: list[Finished]
    ) -> Events:
        """Answer cases and yield what is shown; what is looked at first goes into ``finished``."""
        async with aclosing(self._answered(cases, session, host)) as deltas:
            async for case, delta in deltas:
                async with aclosing(self._advanced(case, delta, finished, host)) as events:
                    async for event in events:
                        yield event

    async def _second_answers(self, finished: list[Finished], host: Host) -> Events:
        """Answer once more, with a larger push, where the first answer did not obey.

        That is told by the lexicon, while the place is still held.
        """
        disobeyed = [
            case for case, result, _ in finished if self._obedience.told(case, result.text) is False
        ]
        again: list[Case] = []
        for case in disobeyed:
            try:
                if await host.call(partial(self._steered_again, case)):
                    again.append(case)
            except Exception as error:  # strategies are foreign code
                _drop(finished, [case])
                yield case, error
        if not again:
            return
        _drop(finished, again)
        with closing(self._opened(again)) as session:
            async with aclosing(self._decoded(again, session, host, finished)) as events:
                async for event in events:
                    yield event

    def _steered_again(self, case: Case) -> bool:
        """Steer a case harder; False if that is how it was steered already."""
        first = case.verdict.decoding if case.verdict else None
        insistence = self.examiner.policy.decoding.retry_push
        record = self._steering.prepare(case, insistence=insistence)
        if record is None or record == first:  # equal records, equal steering
            return False
        case.second, case.followed_by = record, "retry"
        case.text, case.answered = "", False
        return True

    async def _answered(
        self, cases: Sequence[Case], session: Session, host: Host
    ) -> AsyncGenerator[tuple[Case, Delta]]:
        """Answer the cases that are not stopped in one batch; if they cannot be, each alone."""
        jobs = [case.job(place) for place, case in enumerate(cases) if not case.stops]
        began = False
        try:
            async with aclosing(host.answer(session, jobs)) as deltas:
                async for delta in deltas:
                    began = True
                    yield cases[delta.index], delta
            return
        except Exception as error:
            if began or len(jobs) == 1:
                for job in jobs:
                    if not cases[job.index].answered:
                        yield cases[job.index], Delta(job.index, error=error)
                return
        for job in jobs:
            async with aclosing(self._alone(cases[job.index], host)) as answer:
                async for item in answer:
                    yield item

    async def _alone(self, case: Case, host: Host) -> AsyncGenerator[tuple[Case, Delta]]:
        """Answer a case by itself that did not fit into its batch."""
        with closing(self._opened([case])) as session:
            async with aclosing(self._answered([case], session, host)) as answer:
                async for item in answer:
                    yield item

    async def _advanced(
        self, case: Case, delta: Delta, finished: list[Finished], host: Host
    ) -> Events:
        """Yield what a delta shows to the outside; of an answer that is held, nothing yet."""
        done = delta.finish is not None
        case.answered |= done or delta.error is not None
        if delta.error is not None:
            yield case, delta.error
            return
        case.text += delta.text
        if not case.held and (delta.text or (delta.native is not None and not done)):
            yield case, Piece(delta.text, None if done else delta.native)
        if done and (case.held or self._obedience.asks_judge(case)):
            finished.append((case, case.result(delta), delta))
        elif done:
            case.obeyed = self._obedience.told(case, case.text)
            for event in await host.call(partial(self._closed, case)) if case.verdict else ():
                yield event
            if not case.ended:
                yield case, case.result(delta)

    # -- handing out --------------------------------------------------------------------------

    async def _released(self, held: Finished, host: Host) -> Events:
        """Look at a finished answer, close its verdict, and hand it out or withhold it."""
        case, result, _ = held
        try:
            output = await self._looked_at(held, host)
        except Exception as error:  # what cannot be judged is not handed out
            yield case, error
            return
        for event in await host.call(partial(self._closed, case)):
            yield event
        if case.ended:
            return
        verdicts = tuple(verdict for verdict in (case.verdict, output) if verdict is not None)
        if output is not None:
            yield case, output
        if output is not None and output.action in ("block", "review"):
            yield case, rail.withheld(case, verdicts, self.examiner.policy)
        elif case.followed_by == "replace":
            yield case, rail.replaced(verdicts, self.examiner.policy)
        else:
            if case.held and result.text and result.native is None:
                yield case, Piece(result.text)
            yield case, replace(result, verdicts=verdicts)

    async def _looked_at(self, held: Finished, host: Host) -> Verdict | None:
        """Tell whether an answer obeyed, and what follows; return its own verdict, if any."""
        case, result, _ = held
        output, found = None, None
        if case.railed:
            output = await self._at_output(held, host, self.examiner.examine)
            found = output.label
        elif self._obedience.asks_judge(case):
            found = (await self._at_output(held, host, self.examiner.find)).decision.label
        case.obeyed = self._obedience.told(case, result.text, found)
        follows = self._obedience.follows(case)
        if follows == "rail" and output is None:
            output = await self._at_output(held, host, self.examiner.examine)
        case.followed_by = follows or case.followed_by
        return output

    async def _at_output(
        self, held: Finished, host: Host, examine: Callable[[Subject, Host], Awaitable[T]]
    ) -> T:
        """Return what is found of a finished answer; a place is held only for the engine itself."""
        case, result, delta = held
        subject = await host.call(lambda: rail.answer_subject(case, result, delta.read))
        if not judges_on(self.examiner.judge_at("output"), self.engine):
            return await examine(subject, host)
        async with host.place(self._admission, case.request.deadline):
            return await examine(subject, host)

    def _closed(self, case: Case) -> list[tuple[Case, TurnEvent]]:
        """Close a case's verdict, if there is anything new to it, and return the event of that."""
        if case.verdict is None:
            return []
        try:
            closed = self.examiner.close(
                case.subject,
                case.verdict,
                obeyed=case.obeyed,
                decoding=case.second,
                followed_by=case.followed_by,
            )
        except Exception as error:  # sinks are foreign code: nothing goes on without its record
            return [(case, error)]
        news = closed is not case.verdict
        case.verdict = closed
        return [(case, closed)] if news else []


def _drop(finished: list[Finished], cases: Sequence[Case]) -> None:
    finished[:] = [held for held in finished if held[0] not in cases]


def _is_told(finding: Finding) -> bool:
    """Return whether a finding is a verdict: something was judged, or could not be."""
    return finding.decision.label is not None or finding.decision.degraded
