"""Ends the calls of a model that knows nothing of a turn's deadline."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Final, TypeVar

from safecode_guard.errors import TurnTimeout

T = TypeVar("T")

_END: Final = StopIteration()


def call(deadline: float | None, work: Callable[[], T]) -> T:
    """Return what work gives, or give up at the deadline; its thread is then abandoned.

    Raises:
        TurnTimeout: At the deadline.
    """
    if deadline is None:
        return work()

    def only() -> Generator[T]:
        yield work()

    return next(pieces(deadline, only))


def pieces(deadline: float | None, make: Callable[[], Generator[T]]) -> Generator[T]:
    """Yield what a generator yields, until the deadline; raises as `call` does.

    With a deadline the generator runs in a thread of its own, which closes it at its next piece
    once nobody reads any more.
    """
    if deadline is None:
        yield from make()
        return
    told: SimpleQueue[tuple[T] | BaseException] = SimpleQueue()
    unread = Event()
    context = contextvars.copy_context()
    pump = (make, told, unread)
    Thread(target=context.run, args=(_pump, *pump), name="safecode-model", daemon=True).start()
    try:
        while not isinstance(found := _taken(told, deadline), StopIteration):
            if isinstance(found, BaseException):
                raise found
            yield found[0]
    finally:
        unread.set()


async def acall(deadline: float | None, work: Awaitable[T]) -> T:
    """Return what is awaited, or cancel it at the deadline; raises as `call` does."""
    left = None if deadline is None else deadline - time.monotonic()
    try:
        async with asyncio.timeout(left) as limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():  # the model's own
            raise
        raise _late() from error


async def apieces(deadline: float | None, chunks: AsyncIterator[T]) -> AsyncIterator[T]:
    """Yield what is iterated, until the deadline; raises as `call` does."""
    while True:
        try:
            chunk = await acall(deadline, anext(chunks))
        except StopAsyncIteration:
            return
        yield chunk


def _pump(
    make: Callable[[], Generator[T]], told: SimpleQueue[tuple[T] | BaseException], unread: Event
) -> None:
    try:
        made = make()
        for piece in made:
            told.put((piece,))
            if unread.is_set():
                made.close()
                return
        told.put(_END)
    except BaseException as error:  # handed to the thread that reads, which raises it
        told.put(error)


def _taken(
    told: SimpleQueue[tuple[T] | BaseException], deadline: float
) -> tuple[T] | BaseException:
    try:
        return told.get(timeout=max(0.0, deadline - time.monotonic()))
    except Empty:
        raise _late() from None


def _late() -> TurnTimeout:
    return TurnTimeout(
        "The turn's deadline passed while the model answered.",
        hint="Raise policy.deadline_s, or give the model's client a timeout of its own.",
    )
