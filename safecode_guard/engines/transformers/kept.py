"""Prefilled prompts that are kept for later turns: an LRU on the engine, bounded in bytes.

A conversation's next turn begins with the tokens of the one before, and so do turns about one
picture. What was computed of them is continued and not computed again. Kept are caches, no text
and no pixels; they are found by what made them: tokens, pictures and their views, and weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final

import numpy as np

from safecode_guard.engines.transformers.protocol import Branch
from safecode_guard.turns.turn import ImagePart, Turn

MOST: Final = 256
"""Prompts that are kept: all that show the same are compared when one is looked for."""


@dataclass(frozen=True)
class Sight:
    """What a prompt's cache depends on beside its tokens."""

    scope: str | None
    """Whose it is; None: anybody's who names no scope either."""
    model: str
    """The engine's id, which holds a digest of the weights."""
    pictures: tuple[Hashable, ...] = ()
    """Sha256, frame and view of each picture that the prompt shows, in order."""

    @classmethod
    def of(cls, turn: Turn, model: str, scope: str | None) -> Sight | None:
        """Return what a turn shows; None if a picture's pixels are not told by its hash."""
        shown = [
            turn.images[part.index]
            for message in turn.messages
            for part in message.parts
            if isinstance(part, ImagePart)
        ]
        if any(image.view is None for image in shown):
            return None
        return cls(scope, model, tuple((i.sha256, i.frame, i.view) for i in shown))


@dataclass(frozen=True)
class KeptStatistics:
    """What keeping prompts has been worth so far."""

    hits: int = 0
    """Prompts that continued a kept one."""
    misses: int = 0
    reused_tokens: int = 0
    """Tokens that were not computed again."""
    evicted: int = 0
    entries: int = 0
    bytes: int = 0


@dataclass(frozen=True, eq=False)
class _Entry:
    sight: Sight
    ids: np.ndarray
    """int64 [tokens]"""
    branch: Branch
    nbytes: int


class KeptPrompts:
    """Prefilled prompts, one row each, the least recently used dropped first. Serves threads.

    Example:
        >>> kept = KeptPrompts()
        >>> kept.statistics().entries
        0
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._of: dict[Sight, list[int]] = {}
        self._lock = Lock()
        self._next = self._bytes = 0
        self._hits = self._misses = self._reused = self._evicted = 0

    def knows(self, sight: Sight) -> bool:
        """Return whether any prompt is kept that shows the same."""
        with self._lock:
            return sight in self._of

    def find(
        self, sight: Sight, ids: Sequence[int], *, least: int = 1
    ) -> tuple[Branch, int] | None:
        """Return the prompt that has most in common with some tokens, and how many tokens.

        At least one token is left to be computed. The branch belongs to the cache: fork it.

        Args:
            sight: What else the cache of these tokens depends on.
            ids: The tokens.
            least: Tokens below which a prompt is of no use, such as those of its pictures.
        """
        wanted = np.asarray(ids[:-1], dtype=np.int64)
        with self._lock:
            found = [(_common(self._entries[n].ids, wanted), n) for n in self._of.get(sight, ())]
            length, number = max(found, default=(0, 0))
            if length < least:
                self._misses += 1
                return None
            self._hits += 1
            self._reused += length
            self._entries.move_to_end(number)
            return self._entries[number].branch, length

    def put(
        self, sight: Sight, ids: Sequence[int], branch: Branch, nbytes: int, *, limit: int
    ) -> None:
        """Keep a prompt's branch of one row, which nobody may change any more.

        Prompts that begin the new one are dropped for it, and then the oldest until there are no
        more than `MOST`, and all take no more than ``limit`` bytes. What alone would take more is
        not kept.
        """
        tokens = np.asarray(ids, dtype=np.int64)
        with self._lock:
            for number in list(self._of.get(sight, ())):
                kept = self._entries[number].ids
                if len(kept) <= len(tokens) and _common(kept, tokens) == len(kept):
                    self._drop(number)
            if nbytes <= limit:
                self._entries[self._next] = _Entry(sight, tokens, branch, nbytes)
                self._of.setdefault(sight, []).append(self._next)
                self._next += 1
                self._bytes += nbytes
            while self._bytes > limit or len(self._entries) > MOST:
                self._drop(next(iter(self._entries)))
                self._evicted += 1

    def clear(self) -> None:
        """Drop everything; for whoever changes the weights in place."""
        with self._lock:
            self._entries.clear()
            self._of.clear()
            self._bytes = 0

    def statistics(self) -> KeptStatistics:
        """Return the counts so far and what is held now."""
        with self._lock:
            return KeptStatistics(
                hits=self._hits,
                misses=self._misses,
                reused_tokens=self._reused,
                evicted=self._evicted,
                entries=len(self._entries),
                bytes=self._bytes,
            )

    def _drop(self, number: int) -> None:
        entry = self._entries.pop(number)
        self._bytes -= entry.nbytes
        numbers = self._of[entry.sight]
        numbers.remove(number)
        if not numbers:
            del self._of[entry.sight]


def _common(left: np.ndarray, right: np.ndarray) -> int:
    """Return how many leading tokens two prompts share."""
    width = min(len(left), len(right))
    differs = left[:width] != right[:width]
    return int(differs.argmax()) if differs.any() else width
