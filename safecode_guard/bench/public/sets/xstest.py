"""XSTest (arXiv 2308.01263): safe prompts that sound unsafe, and unsafe ones; no pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import Field

from safecode_guard.bench.public.items import Benchmark, PublicItem, Side
from safecode_guard.bench.public.reading import Entry, checked, first_file, read_csv


class Row(Entry):
    """One line of the file."""

    id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    type: str = Field(min_length=1)
    label: Side


def read(folder: Path) -> Iterator[PublicItem]:
    """Yield the items.

    Raises:
        DataError: If a file or a field is missing or wrong.
    """
    file = first_file(folder, "xstest_prompts.csv")
    for line, cells in read_csv(file):
        row = checked(Row, cells, file=file, entry=line)
        yield PublicItem(
            id=row.id, unit=row.id, side=row.label, turns=(row.prompt,), category=row.type
        )


XSTEST: Final = Benchmark(
    name="xstest",
    title="XSTest",
    source="github.com/paul-rottger/xstest",
    licence="CC BY 4.0",
    layout="xstest_prompts.csv",
    read=read,
    rubrics=("xstest",),
    pictures=False,
)
