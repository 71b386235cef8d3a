"""Concurrent calls that belong together meet here and run as one batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
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

    def __init__(
        self, size: int, run: Callable[[Sequence[Item]], Sequence[Result | BaseException]]
    ) -> None:
        self._run = run
        self._missing = size
        self._lock = threading.Lock()
        self._waiting: list[tuple[Item, Future[Result]]] = []

    def submit(self, item: Item) -> tuple[Future[Result], bool]:
        """Hand in an item; returns its future and whether the caller has to `run_all` now."""
        future: Future[Result] = Future()
        with self._lock:
            self._waiting.append((item, future))
            self._missing -= 1
            return future, self._missing == 0

    def leave(self) -> bool:
        """Say that one caller brings no item; returns whether this caller has to `run_all`."""
        with self._lock:
            self._missing -= 1
            return self._missing == 0 and bool(self._waiting)

    def run_all(self) -> None:
        """Run every item handed in and settle its future."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        futures = [future for _, future in waiting]
        try:
            results = self._run([item for item, _ in waiting])
        except BaseException as error:  # every caller must hear of it, whatever it is
            for future in futures:
                future.set_exception(error)
            return
        for future, result in zip(futures, results, strict=True):
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
