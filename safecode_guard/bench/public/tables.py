"""Pictures in the cells of tables: bytes as the Hub stores them, or a path beside the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safecode_guard.bench.public.items import Picture
from safecode_guard.bench.public.reading import picture_in
from safecode_guard.errors import DataError


def picture_of(cell: Any, *, file: Path, entry: str, field: str) -> Picture:
    """Return the picture of a cell.

    Raises:
        DataError: If there is none, or its path leads out of the directory.
    """
    data, name = cell, cell
    if isinstance(cell, Mapping):
        data, name = cell.get("bytes"), cell.get("path")
    if isinstance(data, bytes) and data:
        return data
    if isinstance(name, str) and name:
        return picture_in(file.parent, name, file=file, entry=entry)
    raise DataError(
        f"{file.name!r}, {entry}: field {field!r} holds no picture.",
        file=str(file),
        entry=entry,
        field=field,
    )
