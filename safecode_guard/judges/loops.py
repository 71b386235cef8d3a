"""An event loop in a thread of its own, for judges that talk to servers.

Whoever asks, plain threads or tasks of any event loop, shares its connections, its limits and its
circuit breaker; and a total timeout holds at every point, which blocking sockets do not allow.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent import futures
from concurrent.futures import Future
from threading import Lock, Thread, current_thread
from typing import Any, TypeVar

from safecode_guard.errors import JudgeUnavailable

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, T]]


class LoopThread:
    """A running event loop, until `stop`. It does not outlive a fork."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._lock = Lock()
        self._stopping = False
        self._thread = Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether work can be done here: not stopped, and in the process that started it."""
        return self._pid == os.getpid() and self._thread.is_alive() and not self._stopping

    def start(self, work: Work[T]) -> Future[T]:
        """Begin work on the loop; its future can be waited for, or cancelled, from any thread.

        Raises:
            JudgeUnavailable: If the loop was stopped.
        """
        with self._lock:  # work that a stopped loop was given would never be done
            if self._stopping:
                raise _stopped()
            return asyncio.run_coroutine_threadsafe(work(), self._loop)

    def run(self, work: Work[T]) -> T:
        """Do work on the loop, and wait for it in this thread.

        Raises:
            JudgeUnavailable: If the loop was stopped meanwhile.
        """
        future = self.start(work)
        try:
            return future.result()
        except futures.CancelledError:
            raise _stopped() from None
        finally:
            future.cancel()  # an interrupted caller leaves nothing behind

    async def arun(self, work: Work[T]) -> T:
        """Do work on the loop, and wait for it on the caller's; a cancelled caller cancels it.

        Raises:
            JudgeUnavailable: If the loop was stopped meanwhile, which cancels no caller.
        """
        try:
            return await asyncio.wrap_future(self.start(work))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise _stopped() from None

    def stop(self, last: Work[None]) -> None:
        """End the loop and what still runs on it; ``last`` is done before."""
        if self._pid != os.getpid() or not self._thread.is_alive():
            return
        if current_thread() is self._thread:  # the garbage collector calls from anywhere
            self._loop.stop()
            return
        with self._lock:
            if self._stopping:  # somebody else ends it
                return
            self._stopping = True
        for final in (_cancel_others, last):
            asyncio.run_coroutine_threadsafe(final(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _stopped() -> JudgeUnavailable:
    return JudgeUnavailable(
        "The judge was closed before it had answered.",
        hint="Close a judge when nobody asks it any more.",
        reason="the judge was closed before it had answered",
    )


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
