"""Who runs a turn: a thread, or an event loop.

The guarded turn is written once, as a coroutine. What it has to wait for, it asks of its host. On
`ThisThread` nothing ever suspends, so `drive` can run the coroutine to its end without any event
loop; `EventLoop` waits on the loop, and sends what blocks to worker threads of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Sequence,
)
from concurrent.futures import Executor, Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from functools import partial
from itertools import islice
from threading import Event
from typing import Any, Protocol, TypeVar

from safecode_guard.judges.deadlines import Strays
from safecode_guard.judges.failsafe import arun_judge, run_many
from safecode_guard.judges.protocol import Judge, JudgeRequest
from safecode_guard.models.protocol import AsyncSession, Delta, Job, Session
from safecode_guard.pipeline.admission import Admission
from safecode_guard.verdict import Judgement

T = TypeVar("T")


class Host(Protocol):
    """What a turn waits for, in the form of who runs it."""

    async def call(self, work: Callable[[], T]) -> T:
        """Do work that blocks."""

    async def judge(
        self,
        judge: Judge,
        requests: Sequence[JudgeRequest],
        *,
        timeout_s: float | None,
        strays: Strays | None = None,
    ) -> list[Judgement]:
        """Judge requests, in order; never raises for what the judge does."""

    def place(
        self, admission: Admission, deadline: float | None
    ) -> AbstractAsyncContextManager[None]:
        """Wait for a place on the model, and hold it."""

    def answer(self, session: Session, jobs: Sequence[Job]) -> AsyncGenerator[Delta]:
        """Answer turns, and yield what is new."""


class ThisThread:
    """The thread that called: nothing here suspends."""

    async def call(self, work: Callable[[], T]) -> T:
        """Do the work at once."""
        return work()

    async def judge(
        self,
        judge: Judge,
        requests: Sequence[JudgeRequest],
        *,
        timeout_s: float | None,
        strays: Strays | None = None,
    ) -> list[Judgement]:
        """Judge requests at once, in one batch where the judge can."""
        return run_many(judge, requests, timeout_s=timeout_s, strays=strays)

    @asynccontextmanager
    async def place(self, admission: Admission, deadline: float | None) -> AsyncIterator[None]:
        """Wait for a place in this thread."""
        with admission.enter(deadline):
            yield

    async def answer(self, session: Session, jobs: Sequence[Job]) -> AsyncGenerator[Delta]:
        """Yield what the session yields."""
        with closing(session.answer(jobs)) as deltas:
            for delta in deltas:
                yield delta


class EventLoop:
    """The running event loop; one object serves one call.

    Args:
        workers: Threads for what blocks. Nothing in them waits for a place, so they cannot all
            be taken by those who wait.
        cancelled: Set when the call's task is cancelled, so that a thread that decodes for it
            stops at its next step.
    """

    def __init__(self, workers: Executor, cancelled: Event | None = None) -> None:
        self._workers = workers
        self._cancelled = cancelled or Event()

    async def call(self, work: Callable[[], T]) -> T:
        """Do the work in a worker thread, under the caller's context variables.

        If the task is cancelled, the thread's work is waited for: what it uses must not be closed
        under it.
        """
        context = contextvars.copy_context()
        future = self._workers.submit(context.run, work)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            self._cancelled.set()
            await _ended(future)
            raise

    async def judge(
        self,
        judge: Judge,
        requests: Sequence[JudgeRequest],
        *,
        timeout_s: float | None,
        strays: Strays | None = None,
    ) -> list[Judgement]:
        """Judge requests side by side on the loop; a model in this process, in a worker thread."""
        asked = any(request.prompt is not None for request in requests)
        if asked or judge.abilities.batches:
            return await self.call(
                lambda: run_many(judge, requests, timeout_s=timeout_s, strays=strays)
            )
        judging = (
            arun_judge(judge, request, timeout_s=timeout_s, strays=strays) for request in requests
        )
        return list(await asyncio.gather(*judging))

    def place(
        self, admission: Admission, deadline: float | None
    ) -> AbstractAsyncContextManager[None]:
        """Wait for a place on the loop."""
        return admission.aenter(deadline)

    async def answer(self, session: Session, jobs: Sequence[Job]) -> AsyncGenerator[Delta]:
        """Yield what the session yields; without readers, all of it in one go."""
        if isinstance(session, AsyncSession):
            async for delta in session.aanswer(jobs):
                yield delta
            return
        with closing(session.answer(jobs)) as deltas:
            if not any(job.live for job in jobs):
                for delta in await self.call(lambda: list(deltas)):
                    yield delta
                return
            while following := await self.call(partial(_following, deltas)):
                yield following[0]


def _following(deltas: Iterator[Delta]) -> list[Delta]:
    """Return what comes next, or nothing: a StopIteration cannot leave a future."""
    return list(islice(deltas, 1))


async def _ended(future: Future[Any]) -> None:
    """Wait until a thread's work is over, however often the task is cancelled meanwhile."""
    if future.cancel():
        return
    while not future.done():
        try:
            await asyncio.wait([asyncio.wrap_future(future)])
        except asyncio.CancelledError:
            continue


def run(turn: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose host is `ThisThread` to its end, in this thread."""
    try:
        turn.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    turn.close()
    raise RuntimeError("a turn in this thread waited for an event loop")


def drive(events: AsyncGenerator[T]) -> Generator[T]:
    """Iterate, in this thread, an async generator whose host is `ThisThread`."""
    try:
        while True:
            try:
                event = run(_next(events))
            except StopAsyncIteration:
                return
            yield event
    finally:
        run(events.aclose())


async def _next(events: AsyncGenerator[T]) -> T:
    return await anext(events)
