"""Judgements kept in memory. The policy is applied afresh to each; verdicts are never cached."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from safecode_guard.judges.disk_cache import DiskCache
from safecode_guard.verdict import Judgement, ParseStatus

_NOT_KEPT: Final[frozenset[ParseStatus]] = frozenset({"malformed", "not_run"})


class JudgementCache:
    """A thread-safe store of the judgements used last, by ``JudgeRequest.key``.

    A failed check, or one whose answer could not be read, is never kept: the next turn asks
    again.

    Example:
        >>> cache = JudgementCache(1024)
        >>> cache.get("no such key") is None
        True
    """

    def __init__(self, size: int, *, below: DiskCache | None = None) -> None:
        """Make an empty store.

        Args:
            size: Judgements kept in memory.
            below: A store on disk, asked for what is not in memory, and given all that is kept.

        Raises:
            ValueError: If the size is negative.
        """
        if size < 0:
            raise ValueError(f"size must not be negative, not {size!r}")
        self.size = size
        self._below = below
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Judgement] = OrderedDict()

    @property
    def blocks(self) -> bool:
        """Whether it reads and writes a file: on an event loop that has to be done in a thread."""
        return self._below is not None

    def get(self, key: str) -> Judgement | None:
        """Return the judgement kept under a key, marked ``cached``, or None."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        if found is None and self._below is not None:
            found = self._below.get(key)
            if found is not None:
                self._remember(key, found)
        return None if found is None else found.model_copy(update={"cached": True})

    def put(self, key: str, judgement: Judgement) -> None:
        """Keep a judgement; drop the one that was used longest ago if the store is full."""
        if judgement.failed is not None or judgement.parse_status in _NOT_KEPT:
            return
        judgement = judgement.model_copy(update={"cached": False})
        self._remember(key, judgement)
        if self._below is not None:
            self._below.put(key, judgement)

    def _remember(self, key: str, judgement: Judgement) -> None:
        if self.size == 0:
            return
        with self._lock:
            self._kept[key] = judgement
            self._kept.move_to_end(key)
            if len(self._kept) > self.size:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget what is in memory."""
        with self._lock:
            self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)
