"""Judgements kept in a file, for several processes and the next start.

An SQLite file in WAL mode: readers and writers of several processes do not wait for each other, and
a process that is killed leaves nothing half written. A file that is broken or locked costs a
judgement, never a turn.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from safecode_guard.errors import JudgeError, PolicyError
from safecode_guard.judges.findings import checked_finding
from safecode_guard.verdict import Judgement

_LOG: Final = logging.getLogger("safecode_guard.judges")
_WAIT_S: Final = 0.2
"""How long a writer waits for another one before it lets a judgement go unkept."""
_OPENING_S: Final = 10.0
"""How long a start waits for others that start at the same time."""
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS judgements (key TEXT PRIMARY KEY, found TEXT NOT NULL) WITHOUT ROWID
"""
_ORDER: Final = "CREATE TABLE IF NOT EXISTS kept (at INTEGER PRIMARY KEY, key TEXT NOT NULL)"


class DiskCache:
    """A store of judgements by key in one file, the oldest dropped beyond a number.

    Captions and rationales are content: they are written down only if asked for.

    Example:
        >>> cache = DiskCache(Path("judgements.sqlite"), size=100_000)     # doctest: +SKIP
    """

    def __init__(self, path: Path, *, size: int, content: bool = False) -> None:
        """Open the file, or make it.

        Args:
            path: Of the file; its directory must be there.
            size: Judgements kept.
            content: Whether captions and rationales are kept, too.

        Raises:
            PolicyError: If the file cannot be opened, or is none of SQLite's.
        """
        self.path, self.size, self._content = path, size, content
        self._lock = threading.Lock()
        try:
            with closing(self._open(_OPENING_S)) as file:
                file.execute("PRAGMA journal_mode=WAL")
                file.execute(_TABLE)
                file.execute(_ORDER)
        except (sqlite3.Error, ValueError) as error:  # ValueError: a name that is none
            raise PolicyError(
                f"The cache of judgements {str(path)!r} cannot be opened.",
                hint="Set judge.cache_path to a file in a directory that can be written to.",
            ) from error

    def get(self, key: str) -> Judgement | None:
        """Return the judgement kept under a key, or None; one that makes no sense is none."""
        try:
            with self._lock, closing(self._open()) as file:
                row = file.execute("SELECT found FROM judgements WHERE key = ?", (key,)).fetchone()
            found = None if row is None else _read(row[0])
        except (sqlite3.Error, ValidationError, JudgeError):
            _LOG.warning("A judgement could not be read from the cache", exc_info=True)
            return None
        return found

    def put(self, key: str, judgement: Judgement) -> None:
        """Keep a judgement; drop the oldest beyond the number that is kept."""
        kept = judgement if self._content else judgement.model_copy(update=_NO_CONTENT)
        try:
            with self._lock, closing(self._open()) as file, file:
                if file.execute(
                    "INSERT OR IGNORE INTO judgements VALUES (?, ?)", (key, kept.model_dump_json())
                ).rowcount:
                    file.execute("INSERT INTO kept (key) VALUES (?)", (key,))
                    self._drop(file)
        except sqlite3.Error:
            _LOG.warning("A judgement could not be written to the cache", exc_info=True)

    def _drop(self, file: sqlite3.Connection) -> None:
        count = file.execute("SELECT COUNT(*) FROM kept").fetchone()[0]
        if count <= self.size:
            return
        oldest = file.execute(
            "SELECT at, key FROM kept ORDER BY at LIMIT ?", (count - self.size,)
        ).fetchall()
        file.executemany("DELETE FROM judgements WHERE key = ?", [(key,) for _, key in oldest])
        file.executemany("DELETE FROM kept WHERE at = ?", [(at,) for at, _ in oldest])

    def _open(self, wait_s: float = _WAIT_S) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=wait_s)


def _read(text: str) -> Judgement:
    """Return a judgement as it was kept.

    Raises:
        JudgeError: If nobody can have put it there: it failed, or contradicts itself.
    """
    found = checked_finding(Judgement.model_validate_json(text))
    if found.failed is not None:
        raise JudgeError("A failed check was kept.")
    return found


_NO_CONTENT: Final = {"caption": None, "rationale": None}
