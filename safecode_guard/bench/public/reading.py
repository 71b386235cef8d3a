"""Reading a data set's files: JSON, CSV, JSON Lines and Parquet, checked entry by entry."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from safecode_guard.errors import DataError

E = TypeVar("E", bound="Entry")
_CELL = 10_000_000
"""Longest cell of a CSV file, in characters."""


class Entry(BaseModel):
    """One entry of a data set: the fields that are read; others may stand beside them."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def picture_in(folder: Path, name: str, *, file: Path, entry: str) -> Path:
    """Return the path of a picture that an entry names, whether or not it is there.

    Raises:
        DataError: If it leads out of the directory.
    """
    path = Path(os.path.normpath(folder / name))
    if not path.is_relative_to(os.path.normpath(folder)):
        raise DataError(
            f"{file.name!r}, {entry}: the picture {name!r} leads out of the directory.",
            file=str(file),
            entry=entry,
        )
    return path


def first_folder(folder: Path, *names: str) -> Path:
    """Return the first of some folders within a directory that is there, or the directory."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def first_file(folder: Path, *names: str) -> Path:
    """Return the first of some files that is there.

    Raises:
        DataError: If none is.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"There is no {names[0]!r} in {str(folder)!r}.", file=str(folder / names[0]))


def read_json(file: Path) -> Any:
    """Return a JSON file's content.

    Raises:
        DataError: If it is not JSON, or names a key of an object twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise DataError(
                    f"The entry {key!r} stands twice in {file.name!r}.", file=str(file), entry=key
                )
            found[key] = value
        return found

    try:
        return json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=once)
    except (OSError, ValueError) as error:
        raise DataError(f"{file.name!r} is no JSON: {error}.", file=str(file)) from error


def read_lines(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield each object of a JSON Lines file with the name of its line.

    Raises:
        DataError: If a line is not JSON.
    """
    with file.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield f"line {number}", json.loads(line)
                except ValueError as error:
                    raise DataError(
                        f"Line {number} of {file.name!r} is no JSON: {error}.",
                        file=str(file),
                        entry=f"line {number}",
                    ) from error


def read_csv(file: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield each row of a CSV file with a header, with the name of its line.

    Raises:
        DataError: If it cannot be read, or a row has more cells than the header.
    """
    csv.field_size_limit(min(_CELL, sys.maxsize))
    with file.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.DictReader(stream)
        try:
            for row in rows:
                entry = f"line {rows.line_num}"
                if None in row:
                    raise DataError(
                        f"{entry.capitalize()} of {file.name!r} has more cells than the header.",
                        file=str(file),
                        entry=entry,
                    )
                yield entry, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{file.name!r} is no CSV: {error}.", file=str(file)) from error


def read_table(folder: Path, stem: str) -> Iterator[tuple[Path, str, Any]]:
    """Yield the rows of one split of a Hub data set: file, name of the row, and its cells.

    The split is ``STEM*.parquet`` files in the directory or its ``data/``, as the Hub serves them
    (extra ``parquet``), or ``STEM.jsonl`` with pictures as paths beside it.

    Raises:
        DataError: If neither is there, or a file cannot be read.
    """
    tables = sorted([*folder.glob(f"{stem}*.parquet"), *folder.glob(f"data/{stem}*.parquet")])
    for table in tables:
        yield from ((table, entry, row) for entry, row in _parquet(table))
    if not tables:
        lines = first_file(folder, f"{stem}.jsonl", f"data/{stem}.jsonl")
        yield from ((lines, entry, row) for entry, row in read_lines(lines))


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"{file.name!r} is Parquet, which needs pyarrow.",
            hint="pip install 'safecode-guard[parquet]'",
            file=str(file),
        ) from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=8):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file.name!r} cannot be read: {error}.", file=str(file)) from error


def checked(model: type[E], value: Any, *, file: Path, entry: str) -> E:
    """Return an entry of its type.

    Raises:
        DataError: Naming the file, the entry and the first field that is missing or wrong.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or None
        told = f"field {field!r}: " if field else ""
        raise DataError(
            f"{file.name!r}, {entry}: {told}{first['msg']}.",
            file=str(file),
            entry=entry,
            field=field,
        ) from error


def entries(value: Any, kind: type[E], *, file: Path, within: str = "") -> Iterator[tuple[str, E]]:
    """Yield the entries of an object or a list, each with its key.

    Raises:
        DataError: If it is neither, or an entry is not of its type.
    """
    named: Sequence[tuple[str, Any]]
    if isinstance(value, Mapping):
        named = [(str(key), each) for key, each in value.items()]
    elif isinstance(value, list):
        named = [(str(number), each) for number, each in enumerate(value)]
    else:
        raise DataError(
            f"{file.name!r}{f', {within!r}' if within else ''} holds no entries.",
            file=str(file),
            field=within or None,
        )
    for key, each in named:
        where = f"entry {within}{'.' if within else ''}{key}"
        yield key, checked(kind, each, file=file, entry=where)
