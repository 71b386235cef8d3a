"""Back-pressure: how many turns may be decoded at once, and how many may wait."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import Self

from safecode_guard.errors import Overloaded, TurnTimeout


class Admission:
    """Lets ``active`` turns in at a time and keeps at most ``waiting`` in the queue, in order.

    Threads wait in `enter`, tasks in `aenter`, which holds no thread while it waits; both stand
    in one queue.

    Example:
        >>> with Admission(active=1).enter():
        ...     pass
    """

    def __init__(self, *, active: int = 4, waiting: int = 64) -> None:
        self._lock = threading.Lock()
        self._free = active
        self._limit = waiting
        self._queue: deque[Future[None]] = deque()

    @classmethod
    def unlimited(cls) -> Self:
        """Return an admission where nobody waits, for engines with limits of their own."""
        return cls(active=sys.maxsize)

    @contextmanager
    def enter(self, deadline: float | None = None) -> Iterator[None]:
        """Wait for a place in this thread, at most until ``deadline`` (of ``time.monotonic``).

        Raises:
            Overloaded: If too many turns are waiting already.
            TurnTimeout: If the deadline passes first.
        """
        place = self._ask()
        try:
            place.result(_seconds(deadline))
        except BaseException as error:
            self._give_up(place)
            raise _late(error) from None
        try:
            yield
        finally:
            self._release()

    @asynccontextmanager
    async def aenter(self, deadline: float | None = None) -> AsyncIterator[None]:
        """Wait for a place on the event loop; raises as `enter` does."""
        place = self._ask()
        try:
            async with asyncio.timeout(_seconds(deadline)):
                await asyncio.wrap_future(place)
        except BaseException as error:
            self._give_up(place)
            raise _late(error) from None
        try:
            yield
        finally:
            self._release()

    def _ask(self) -> Future[None]:
        """Return a future that is done once there is a place."""
        place: Future[None] = Future()
        with self._lock:
            if self._free:
                self._free -= 1
                place.set_result(None)
            elif len(self._queue) >= self._limit:
                raise Overloaded(
                    f"More than {self._limit} turns are waiting for the model.",
                    hint="Send fewer at once, or raise max_waiting.",
                )
            else:
                self._queue.append(place)
        return place

    def _release(self) -> None:
        """Hand the place to who has waited longest, or keep it free."""
        with self._lock:
            while self._queue:
                if self._queue[0].set_running_or_notify_cancel():
                    self._queue.popleft().set_result(None)
                    return
                self._queue.popleft()
            self._free += 1

    def _give_up(self, place: Future[None]) -> None:
        """Leave the queue; a place that was given in the same moment goes back."""
        with self._lock:
            if place in self._queue:
                self._queue.remove(place)
                return
        if place.done() and not place.cancelled():
            self._release()


def _seconds(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _late(error: BaseException) -> BaseException:
    return waited_too_long() if isinstance(error, TimeoutError) else error


def waited_too_long() -> TurnTimeout:
    """Return the error of a turn whose time was up before it had a place."""
    return TurnTimeout(
        "The turn's deadline passed while it waited for the model.",
        hint="Raise policy.deadline_s, or send fewer turns at once.",
    )
