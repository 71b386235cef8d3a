"""Deadlines of a check, in seconds of ``time.monotonic``."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
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


class Strays:
    """Threads that were abandoned at a deadline and still run.

    Python cannot stop a thread, so a judge that hangs leaves one behind with every call. Past
    ``most`` of them it is not called again until one has ended.
    """

    def __init__(self, most: int = 4) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def check(self) -> None:
        """Refuse a call while too many earlier ones still run.

        Raises:
            JudgeTimeout: If there are ``most`` of them.
        """
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            if len(self._threads) >= self.most:
                raise JudgeTimeout(
                    f"{len(self._threads)} earlier calls of the judge still hang.",
                    hint="Give its client a timeout of its own.",
                )

    def add(self, thread: threading.Thread) -> None:
        """Remember a thread that was abandoned."""
        with self._lock:
            self._threads.append(thread)


def call_before(
    deadline: float | None, work: Callable[[], T], *, strays: Strays | None = None
) -> T:
    """Call ``work`` and return its result, or give up at the deadline.

    Without a deadline the call runs in this thread. With one it runs in a daemon thread of its
    own (which sees the caller's context variables); at the deadline that thread is abandoned,
    and its late result is dropped.

    Args:
        deadline: When to give up.
        work: What is called.
        strays: The threads abandoned before; None: they are not counted.

    Raises:
        JudgeTimeout: At the deadline, or at once where too many earlier calls still run.
    """
    left = remaining(deadline)
    if left is None:
        return work()
    strays = strays or Strays()
    strays.check()
    outcome = _Outcome(work)
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=context.run, args=(outcome.run,), name="safecode-judge", daemon=True
    )
    thread.start()
    thread.join(left)
    if thread.is_alive():
        strays.add(thread)
    return outcome.take()


async def acall_before(
    deadline: float, work: Callable[[], T], *, strays: Strays | None = None
) -> T:
    """Call ``work``, which blocks, beside the event loop; gives up as `call_before` does.

    Its thread is none of the loop's own: those are few, and all would be taken by what hangs.
    """
    left = remaining(deadline)
    strays = strays or Strays()
    strays.check()
    outcome, ended = _Outcome(work), Future[None]()

    def run() -> None:
        outcome.run()
        if ended.set_running_or_notify_cancel():
            ended.set_result(None)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="safecode-judge", daemon=True)
    thread.start()
    try:
        async with asyncio.timeout(left):
            await asyncio.wrap_future(ended)
    except TimeoutError:
        pass
    finally:
        if not ended.done() or ended.cancelled():
            strays.add(thread)
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
