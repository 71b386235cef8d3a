"""An append-only log of verdicts, one JSON line each, chained by hashes.

It is a sink of the Examiner: what is concluded is written before anything is handed out, and what
cannot be written stops the turn. A steered turn has a second line, under the same id, with what
became of its answer. Lines hold no pixels, and no captions or rationales unless asked for. Several
processes may write to one file.

Each line carries the hash of the last whole line before it, so that a changed, removed or inserted
line shows. Lines cut off the end do not show: keep the last hash elsewhere (`AuditLog.head`).
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

from filelock import FileLock
from pydantic import ValidationError

from safecode_guard.errors import AuditError
from safecode_guard.verdict import Verdict

GENESIS: Final = "0" * 64
"""What the first line of a log is chained to."""
_TAIL: Final = 1 << 16
_OBEYED: Final = {True: "yes", False: "no", None: "not told"}
_CONTENT: Final = frozenset({"caption", "rationale"})

Fsync = Literal["always", "never"]


@dataclass(frozen=True)
class Entry:
    """One line of a log, as it stands there."""

    file: Path
    line: int
    """Counted from 1."""
    record: dict[str, Any] | None
    """None: the line is torn, and nothing can be read of it."""
    sound: bool = True
    """The line is what was written, and follows the one before it."""

    @property
    def verdict(self) -> Verdict | None:
        """The verdict that was written; None where none can be read, as of a changed line."""
        try:
            return Verdict.model_validate(self.record["verdict"]) if self.record else None
        except ValidationError:
            return None


@dataclass(frozen=True)
class Verification:
    """What `verify` found."""

    entries: int
    head: str
    """Hash of the last whole line: compare it with one that was kept elsewhere."""
    torn: tuple[str, ...] = ()
    """Where a line broke off, as ``file:line``: a writer was killed there."""
    broken: tuple[str, ...] = ()
    """Where a line is not what was written, or does not follow the one before it."""

    @property
    def sound(self) -> bool:
        """Whether nothing was changed, removed or inserted; a torn line is neither."""
        return not self.broken


@dataclass
class AuditLog:
    """Writes verdicts to a file; hand it to a guard as a sink.

    Example:
        >>> log = AuditLog("verdicts.jsonl")                             # doctest: +SKIP
        >>> guard = SafeCoDeGuard(model=model, sinks=[log])              # doctest: +SKIP
    """

    path: Path
    content: bool = False
    """Write captions and rationales too, where verdicts have them."""
    fsync: Fsync = "always"
    """``always``: a line is on the disk before the turn goes on."""
    max_bytes: int | None = None
    """Size at which the file is put aside as ``name.1``, ``name.2``... and a new one begun."""
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _known: tuple[tuple[int, int], str] = field(default=((-1, -1), GENESIS), init=False, repr=False)
    """The file and its size after our last line, and the head then."""

    def __post_init__(self) -> None:
        """Check the place, so that a log that cannot be written is told at the start.

        Raises:
            AuditError: If the directory is missing or not to be written to.
        """
        self._check_options()
        self.path = Path(self.path)
        folder = self.path.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise AuditError(
                f"There is no folder {str(folder)!r} to write the audit log {self.path.name!r} to.",
                hint="Make it, or name another file.",
            )

    def _check_options(self) -> None:
        if self.fsync not in get_args(Fsync):
            raise AuditError(
                f"fsync cannot be {self.fsync!r}.", hint=f"Use one of {get_args(Fsync)}."
            )
        most: object = self.max_bytes
        if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
            raise AuditError(
                f"max_bytes cannot be {most!r}.", hint="Give a number of bytes, or None."
            )

    def __call__(self, verdict: Verdict) -> None:
        """Append a verdict.

        Raises:
            AuditError: If it cannot be written.
        """
        hidden = set() if self.content else set(_CONTENT)
        body = verdict.model_dump(mode="json", exclude=hidden)
        try:
            with self._lock, FileLock(f"{self.path}.lock", timeout=30):
                self._rotate()
                self._append(body)
        except (OSError, TimeoutError, ValueError) as error:  # ValueError: a name that is none
            raise AuditError(
                f"The audit log {self.path.name!r} cannot be written: {type(error).__name__}.",
                hint="Free the disk or the lock; turns are not answered without their record.",
            ) from error

    def closed(self, verdict: Verdict) -> None:
        """Append a steered turn's verdict once more, with what became of its answer.

        Raises:
            AuditError: If it cannot be written.
        """
        self(verdict)

    @property
    def head(self) -> str:
        """Hash of the last whole line."""
        with self._lock:
            return self._head()

    def _append(self, body: dict[str, Any]) -> None:
        record = {"at": datetime.now(UTC).isoformat(), "prev": self._head(), "verdict": body}
        line = _canonical(record | {"hash": _digest(record)})
        with self.path.open("ab") as file:
            torn = file.tell() and not _ends_whole(self.path)
            file.write((b"\n" if torn else b"") + line + b"\n")
            file.flush()
            if self.fsync == "always":
                os.fsync(file.fileno())
        self._known = (self._place(), hashlib.sha256(line).hexdigest())

    def _head(self) -> str:
        """Return the hash of the last whole line; read only if another process wrote meanwhile."""
        place = self._place()
        if place != self._known[0]:
            self._known = (place, _last_hash(self.path) if place[1] else self._carried_over())
        return self._known[1]

    def _place(self) -> tuple[int, int]:
        """Return which file the log is now, and its size; another may have put ours aside."""
        if not self.path.exists():
            return 0, 0
        found = self.path.stat()
        return found.st_ino, found.st_size

    def _carried_over(self) -> str:
        """Return the head of the file put aside last: a new one goes on from there."""
        aside = _aside(self.path)
        return _last_hash(aside[-1]) if aside else GENESIS

    def _rotate(self) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        if self.max_bytes is not None and size >= self.max_bytes:
            aside = _aside(self.path)  # of which some may have been taken away
            number = _number(self.path, aside[-1]) + 1 if aside else 1
            self.path.rename(self.path.with_name(f"{self.path.name}.{number}"))


def entries(path: str | Path) -> Iterator[Entry]:
    """Yield the lines of a log, the files put aside first.

    Raises:
        AuditError: If there is no such log.
    """
    path = Path(path)
    files = [*_aside(path), *([path] if path.exists() else [])]
    if not files:
        raise AuditError(f"There is no audit log {str(path)!r}.", hint="Name the log's file.")
    head = GENESIS
    for file in files:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                record = _read(line)
                if record is None:
                    yield Entry(file, number, None, sound=False)
                    continue
                signed = {key: value for key, value in record.items() if key != "hash"}
                sound = record.get("hash") == _digest(signed) and record.get("prev") == head
                yield Entry(file, number, record, sound)
                head = hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def verify(path: str | Path) -> Verification:
    """Check a log line by line.

    Raises:
        AuditError: If there is no such log.
    """
    torn: list[str] = []
    broken: list[str] = []
    count, head = 0, GENESIS
    for entry in entries(path):
        where = f"{entry.file.name}:{entry.line}"
        if entry.record is None:
            torn.append(where)
            continue
        count += 1
        if not entry.sound:
            broken.append(where)
        head = hashlib.sha256(_canonical(entry.record)).hexdigest()
    return Verification(count, head, tuple(torn), tuple(broken))


def statistics_of(path: str | Path) -> dict[str, Any]:
    """Return what a log's verdicts add up to: counts, the share of failed checks, latencies.

    A verdict with two lines counts once, as the later one has it.

    Raises:
        AuditError: If there is no such log.
    """
    written = [found for entry in entries(path) if (found := entry.verdict) is not None]
    verdicts = list({verdict.id: verdict for verdict in written}.values())
    latencies = sorted(v.judge.latency_ms for v in verdicts if v.judge and not v.judge.cached)
    return {
        "verdicts": len(verdicts),
        "stages": dict(Counter(v.stage for v in verdicts)),
        "actions": dict(Counter(v.action for v in verdicts)),
        "labels": dict(Counter(str(v.label) for v in verdicts)),
        "judges": dict(Counter(v.judge.id for v in verdicts if v.judge)),
        "obeyed": dict(Counter(_OBEYED[v.obeyed] for v in verdicts if v.closed)),
        "failed": sum(v.degraded for v in verdicts),
        "median_ms": statistics.median(latencies) if latencies else None,
        "p95_ms": latencies[int(0.95 * (len(latencies) - 1))] if latencies else None,
    }


def _canonical(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(record)).hexdigest()


def _read(line: bytes) -> dict[str, Any] | None:
    """Read a line; a part of a JSON object is never one itself, so a torn line cannot pass."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # the latter: brackets without end
        return None
    whole = isinstance(record, dict) and {"at", "hash", "prev", "verdict"} <= record.keys()
    return record if whole else None


def _last_hash(path: Path) -> str:
    """Return the hash of a file's last whole line."""
    size = path.stat().st_size
    reach = _TAIL
    while True:
        with path.open("rb") as file:
            file.seek(max(0, size - reach))
            lines = file.read().splitlines(keepends=True)
        whole = lines if reach >= size else lines[1:]
        sound = [line for line in whole if _read(line) is not None]
        if sound:
            return hashlib.sha256(sound[-1].rstrip(b"\n")).hexdigest()
        if reach >= size:
            return GENESIS
        reach *= 4


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _number(path: Path, aside: Path) -> int:
    """Return the number of a file put aside."""
    return int(aside.name[len(path.name) + 1 :])


def _aside(path: Path) -> list[Path]:
    """Return the files put aside, the oldest first."""
    numbered = (
        (_number(path, file), file)
        for file in path.parent.glob(f"{path.name}.*")
        if file.name[len(path.name) + 1 :].isdigit()
    )
    return [file for _, file in sorted(numbered)]
