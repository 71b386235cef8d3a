"""What a run has found so far, on disk: a broken run goes on where it stopped.

Entries are found by keys that name all they depend on (weights, parameters, item with its
picture, verdict), so a file from another run never gives a wrong answer, only an unused one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safecode_guard.errors import GuardError


class Ledger:
    """A store of JSON values under text keys, kept in memory and, if it has a file, there too.

    Example:
        >>> ledger = Ledger()
        >>> ledger.add({"answer|nano|pair-1@3f2a": {"text": "No."}})
        >>> ledger["answer|nano|pair-1@3f2a"]["text"]
        'No.'
    """

    def __init__(self, file: Path | None = None) -> None:
        """Read the file if it exists; a last line that was cut off is dropped.

        Raises:
            GuardError: If the file is none of this kind.
        """
        self._file = file
        self._entries: dict[str, Any] = {}
        if file is not None and file.exists():
            self._read(file)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entries: Mapping[str, Any]) -> None:
        """Keep entries; all of them are in the file when this returns."""
        self._entries.update(entries)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as stream:
                for key, value in entries.items():
                    stream.write(json.dumps([key, value], ensure_ascii=False) + "\n")

    def _read(self, file: Path) -> None:
        whole, _, cut = file.read_text(encoding="utf-8").rpartition("\n")
        try:
            self._entries = dict(json.loads(line) for line in whole.splitlines() if line)
        except (ValueError, TypeError) as error:
            raise GuardError(
                f"{str(file)!r} is no record of a benchmark.",
                hint="Give --resume a file that this command wrote, or one that does not exist.",
            ) from error
        if cut:
            file.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
