"""An event loop in a thread of its own, for judges that talk to servers.

Whoever asks, plain threads or tasks of any event loop, shares its connections, its limits and its
circuit breaker; and a total timeout holds at every point, which blocking sockets do not allow.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from threading import Thread, current_thread
from typing import Any, TypeVar

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, T]]


class LoopThread:
    """A running event loop, until `stop`. It does not outlive a fork."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._thread = Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether work can be done here: not stopped, and in the process that started it."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def run(self, work: Work[T]) -> T:
        """Do work on the loop, and wait for it in this thread."""
        future = self._submitted(work)
        try:
            return future.result()
        finally:
            future.cancel()  # an interrupted caller leaves nothing behind

    async def arun(self, work: Work[T]) -> T:
        """Do work on the loop, and wait for it on the caller's; a cancelled caller cancels it."""
        return await asyncio.wrap_future(self._submitted(work))

    def stop(self, last: Work[None]) -> None:
        """End the loop and what still runs on it; ``last`` is done before."""
        if not self.alive:
            return
        if current_thread() is self._thread:  # the garbage collector calls from anywhere
            self._loop.stop()
            return
        self.run(_cancel_others)
        self.run(last)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _submitted(self, work: Work[T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work(), self._loop)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
