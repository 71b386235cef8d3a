"""MOSSBench (arXiv 2406.17806): harmless requests over pictures that look as if they were not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import Field

from safecode_guard.bench.public.items import Benchmark, PublicItem
from safecode_guard.bench.public.reading import (
    Entry,
    entries,
    first_file,
    first_folder,
    picture_in,
    read_json,
)


class Metadata(Entry):
    """What kind of stimulus it is."""

    over: str = Field(min_length=1)


class Scene(Entry):
    """One entry: a picture and a question about it."""

    image: str = Field(min_length=1)
    question: str = Field(min_length=1)
    metadata: Metadata


def read(folder: Path) -> Iterator[PublicItem]:
    """Yield the items; all are harmless.

    Raises:
        DataError: If a file or a field is missing or wrong.
    """
    root = first_folder(folder, "data")
    file = first_file(root, "images_information/information.json")
    for key, scene in entries(read_json(file), Scene, file=file):
        yield PublicItem(
            id=key,
            unit=key,
            side="safe",
            turns=(scene.question,),
            pictures=(picture_in(root, scene.image, file=file, entry=f"entry {key}"),),
            category=scene.metadata.over,
        )


MOSSBENCH: Final = Benchmark(
    name="mossbench",
    title="MOSSBench",
    source="github.com/xirui-li/MOSSBench",
    licence="CC BY-SA 4.0, for tests only",
    layout="images_information/information.json and images/, or both within data/",
    read=read,
    rubrics=("refusal",),
)
