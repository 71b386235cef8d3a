"""What runs on an engine's own event loop, read from any thread and from any other loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from contextlib import aclosing
from queue import SimpleQueue
from typing import Generic, TypeVar

from safecode_guard.judges.loops import LoopThread

T = TypeVar("T")
Make = Callable[[], AsyncGenerator[T]]
Put = Callable[["tuple[T] | None"], object]


class Pump(Generic[T]):
    """Iterates one async generator on a loop, for a reader elsewhere.

    What the generator raises, the reader raises; a reader that goes away cancels it.
    """

    def __init__(self, loop: LoopThread, make: Make[T]) -> None:
        self._loop, self._make = loop, make
        self._work: Future[None] | None = None
        self._stopped = False

    def stop(self) -> None:
        """Cancel it; its reader is told that there is no more."""
        self._stopped = True
        if self._work is not None:
            self._work.cancel()

    def items(self) -> Generator[T]:
        """Yield what the generator yields, in a thread."""
        queue: SimpleQueue[tuple[T] | None] = SimpleQueue()
        work = self._begun(queue.put)
        try:
            while (item := queue.get()) is not None and not self._stopped:
                yield item[0]
            self._end(work)
        finally:
            work.cancel()

    async def aitems(self) -> AsyncGenerator[T]:
        """Yield what the generator yields, on the running loop."""
        queue: asyncio.Queue[tuple[T] | None] = asyncio.Queue()
        here = asyncio.get_running_loop()
        work = self._begun(lambda item: here.call_soon_threadsafe(queue.put_nowait, item))
        try:
            while (item := await queue.get()) is not None and not self._stopped:
                yield item[0]
            self._end(work)
        finally:
            work.cancel()

    def _begun(self, put: Put[T]) -> Future[None]:
        async def pumped() -> None:
            async with aclosing(self._make()) as items:
                async for item in items:
                    put((item,))

        work = self._work = self._loop.start(pumped)
        work.add_done_callback(lambda _: put(None))  # also where it never began
        if self._stopped:
            work.cancel()
        return work

    def _end(self, work: Future[None]) -> None:
        """Raise what the generator raised, unless it was stopped."""
        if not self._stopped:
            work.result()
