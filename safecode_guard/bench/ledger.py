"""What a run has found so far, on disk: a broken run goes on where it stopped.

Entries are found by keys that name all they depend on (weights, parameters, item with its
picture, verdict), so a file from another run never gives a wrong answer, only an unused one. With
a file only the places of the entries are kept in memory, however long they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from safecode_guard.errors import GuardError

_START: Final = b'["'


class Ledger:
    """A store of JSON values under text keys: in its file, or in memory if it has none.

    Example:
        >>> ledger = Ledger()
        >>> ledger.add({"answer|nano|pair-1@3f2a": {"text": "No."}})
        >>> ledger["answer|nano|pair-1@3f2a"]["text"]
        'No.'
    """

    def __init__(self, file: Path | None = None) -> None:
        """Look through the file if it exists; a last line that was cut off is dropped.

        Raises:
            GuardError: If the file is none of this kind.
        """
        self._file = file
        self._entries: dict[str, Any] = {}
        self._places: dict[bytes, int] = {}
        if file is not None and file.exists():
            self._places = dict(_places(file))

    def __contains__(self, key: str) -> bool:
        return key in self._entries or _name(key) in self._places

    def __getitem__(self, key: str) -> Any:
        if self._file is None:
            return self._entries[key]
        with self._file.open("rb") as stream:
            stream.seek(self._places[_name(key)])
            return json.loads(stream.readline())[1]

    def __len__(self) -> int:
        return len(self._entries) + len(self._places)

    def add(self, entries: Mapping[str, Any]) -> None:
        """Keep entries; all of them are in the file when this returns."""
        if self._file is None:
            self._entries.update(entries)
            return
        with self._file.open("ab") as stream:
            for key, value in entries.items():
                place = stream.tell()
                stream.write(json.dumps([key, value], ensure_ascii=False).encode() + b"\n")
                self._places[_name(key)] = place


def _name(key: str) -> bytes:
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _places(file: Path) -> Iterator[tuple[bytes, int]]:
    """Yield where each entry of a file stands; cut off a last line that has no end."""
    with file.open("r+b") as stream:
        place = 0
        for line in iter(stream.readline, b""):
            if not line.endswith(b"\n") and line.startswith(_START[: len(line)]):
                stream.truncate(place)
                return
            if line.strip():
                yield _key(file, line), place
            place += len(line)


def _key(file: Path, line: bytes) -> bytes:
    try:
        key, _ = json.loads(line)
        return _name(key)
    except (ValueError, TypeError, AttributeError) as error:
        raise GuardError(
            f"{str(file)!r} is no record of a benchmark.",
            hint="Give --resume a file that this command wrote, or one that does not exist.",
        ) from error
