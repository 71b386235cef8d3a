"""Concurrent calls that belong together meet here and run as one batch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Rendezvous(Generic[Item, Result]):
    """Collects the items of ``size`` callers; the last to arrive runs them all.

    LangChain runs ``batch`` as one call per input, each with callbacks, caches and errors of its
    own. That stays as it is; only the forward passes meet. A caller that ends without an item
    (a cache hit, bad input) must ``leave``, or the others would wait for ever.
    """

    def __init__(self, size: int) -> None:
        self._missing = size
        self._lock = threading.Lock()
        self._waiting: list[tuple[Item, Future[Result]]] = []

    def submit(self, item: Item) -> tuple[Future[Result], bool]:
        """Hand in an item; returns its future and whether the caller is the last to come."""
        future: Future[Result] = Future()
        with self._lock:
            self._waiting.append((item, future))
            self._missing -= 1
            return future, self._missing == 0

    def leave(self) -> bool:
        """Say that one caller brings no item; returns whether it was the last, and some wait."""
        with self._lock:
            self._missing -= 1
            return self._missing == 0 and bool(self._waiting)

    @property
    def items(self) -> list[Item]:
        """What was handed in."""
        return [item for item, _ in self._waiting]

    def settle(self, results: Sequence[Result | BaseException]) -> None:
        """Give each caller its result, or the error that is it."""
        for (_, future), result in zip(self._waiting, results, strict=True):
            if not future.set_running_or_notify_cancel():
                continue  # its caller has gone
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Let every caller hear of an error that struck them all."""
        self.settle([error] * len(self._waiting))
