"""MSTS (arXiv 2501.10057): requests that only their picture makes unsafe, in eleven languages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import Field

from safecode_guard.bench.public.items import Benchmark, PublicItem
from safecode_guard.bench.public.reading import (
    Entry,
    checked,
    first_folder,
    picture_in,
    read_csv,
)
from safecode_guard.errors import DataError

_ENDINGS: Final = (".jpg", ".jpeg", ".png", ".webp")


class Row(Entry):
    """One line of ``LANGUAGE_multimodal.csv``."""

    hazard_category: str = Field(min_length=1)
    case_id: str = Field(min_length=1)
    unsafe_image_id: str = Field(min_length=1)
    prompt_text: str = Field(min_length=1)
    prompt_type: str = Field(min_length=1)


def read(folder: Path) -> Iterator[PublicItem]:
    """Yield the items, language by language; all are unsafe.

    Raises:
        DataError: If a file or a field is missing or wrong.
    """
    root = first_folder(folder, "data")
    files = sorted((root / "prompts").glob("*_multimodal.csv"))
    if not files:
        raise DataError(
            f"There is no language in 'prompts' of {str(root)!r}.", file=str(root / "prompts")
        )
    for file in files:
        language = file.stem.removesuffix("_multimodal")
        for line, cells in read_csv(file):
            row = checked(Row, cells, file=file, entry=line)
            yield PublicItem(
                id=f"{language}/{row.case_id}/{row.prompt_type}",
                unit=row.case_id,
                side="unsafe",
                turns=(row.prompt_text,),
                pictures=(_picture(root, row.unsafe_image_id, file, line),),
                part=language,
                category=row.hazard_category,
            )


def _picture(root: Path, name: str, file: Path, line: str) -> Path:
    """Return the picture, whatever its file is called at the end."""
    named = [
        picture_in(root, f"unsafe_images/{name}{end}", file=file, entry=line) for end in _ENDINGS
    ]
    return next((path for path in named if path.is_file()), named[0])


MSTS: Final = Benchmark(
    name="msts",
    title="MSTS",
    source="github.com/paul-rottger/msts-multimodal-safety",
    licence="CC BY 4.0; the pictures have their own",
    layout="prompts/LANGUAGE_multimodal.csv, and unsafe_images/ID.jpg as its script fetches them, "
    "or both within data/",
    read=read,
    rubrics=("attack",),
)
