"""Deadlines of a check, in seconds of ``time.monotonic``."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from safecode_guard.errors import JudgeTimeout

T = TypeVar("T")


def earliest(deadline: float | None, timeout_s: float | None) -> float | None:
    """Return the earlier of a deadline and a timeout that starts now; None if there is neither."""
    if timeout_s is None:
        return deadline
    limit = time.monotonic() + timeout_s
    return limit if deadline is None else min(deadline, limit)


def remaining(deadline: float | None) -> float | None:
    """Return the seconds that are left, or None without a deadline.

    Raises:
        JudgeTimeout: If the deadline has passed.
    """
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise JudgeTimeout(
            "The judge's deadline had passed before it could answer.",
            hint="Raise judge.timeout_s or deadline_s, or use a lighter judge.",
        )
    return left


def has_time(deadline: float | None) -> bool:
    """Return whether a deadline, if there is one, is still to come."""
    return deadline is None or deadline > time.monotonic()


def call_before(deadline: float | None, work: Callable[[], T]) -> T:
    """Call ``work`` and return its result, or give up at the deadline.

    Without a deadline the call runs in this thread. With one it runs in a daemon thread of its
    own (which sees the caller's context variables); at the deadline that thread is abandoned,
    since Python cannot stop it, and its late result is dropped.

    Raises:
        JudgeTimeout: At the deadline.
    """
    left = remaining(deadline)
    if left is None:
        return work()
    outcome = _Outcome(work)
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=context.run, args=(outcome.run,), name="safecode-judge", daemon=True
    )
    thread.start()
    thread.join(left)
    return outcome.take()


class _Outcome(Generic[T]):
    """The result or the error of a call in another thread."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._results: list[T] = []
        self._errors: list[BaseException] = []

    def run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:  # handed to the waiting thread, which raises it
            self._errors.append(error)

    def take(self) -> T:
        if self._errors:
            raise self._errors[0]
        if not self._results:
            raise JudgeTimeout(
                "The judge did not answer before its deadline.",
                hint="Raise judge.timeout_s or deadline_s, or use a lighter judge.",
            )
        return self._results[0]
