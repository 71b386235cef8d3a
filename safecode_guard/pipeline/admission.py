"""Back-pressure: how many turns may be decoded at once, and how many may wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from safecode_guard.errors import Overloaded, TurnTimeout


class Turnstile:
    """Lets ``active`` turns in at a time and keeps at most ``waiting`` in the queue."""

    def __init__(self, *, active: int = 4, waiting: int = 64) -> None:
        self._free = threading.BoundedSemaphore(active)
        self._queue = threading.BoundedSemaphore(active + waiting)
        self._limit = waiting

    @contextmanager
    def enter(self, deadline: float | None = None) -> Iterator[None]:
        """Wait for a place, at most until ``deadline`` (seconds of ``time.monotonic``).

        Raises:
            Overloaded: If too many turns are waiting already.
            TurnTimeout: If the deadline passes first.
        """
        if not self._queue.acquire(blocking=False):
            raise Overloaded(
                f"More than {self._limit} turns are waiting for the model.",
                hint="Send fewer at once, or raise max_waiting.",
            )
        try:
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._free.acquire(timeout=timeout):
                raise TurnTimeout(
                    "The turn's deadline passed while it waited for the model.",
                    hint="Raise policy.deadline_s, or send fewer turns at once.",
                )
            try:
                yield
            finally:
                self._free.release()
        finally:
            self._queue.release()
