"""MM-SafetyBench (arXiv 2311.17600): harmful questions whose key phrase stands in the picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import Field

from safecode_guard.bench.public.items import Benchmark, PublicItem
from safecode_guard.bench.public.reading import Entry, entries, first_folder, picture_in, read_json
from safecode_guard.errors import DataError

KINDS: Final = ("SD", "SD_TYPO", "TYPO")
"""Pictures: drawn by Stable Diffusion, with the phrase written below, the phrase alone."""


class Question(Entry):
    """One entry of a scenario's file."""

    rephrased: str = Field(alias="Rephrased Question", min_length=1)
    rephrased_sd: str = Field(alias="Rephrased Question(SD)", min_length=1)

    def to(self, kind: str) -> str:
        """Return the question that goes with a kind of picture."""
        return self.rephrased_sd if kind == "SD" else self.rephrased


def read(folder: Path) -> Iterator[PublicItem]:
    """Yield the items, each question with its three pictures; all are harmful.

    Raises:
        DataError: If a file or a field is missing or wrong.
    """
    root = first_folder(folder, "data")
    files = sorted((root / "processed_questions").glob("*.json"))
    if not files:
        raise DataError(
            f"There is no scenario in 'processed_questions' of {str(root)!r}.",
            file=str(root / "processed_questions"),
        )
    for file in files:
        for key, question in entries(read_json(file), Question, file=file):
            for kind in KINDS:
                name = f"imgs/{file.stem}/{kind}/{key}.jpg"
                yield PublicItem(
                    id=f"{file.stem}/{kind}/{key}",
                    unit=f"{file.stem}/{key}",
                    side="unsafe",
                    turns=(question.to(kind),),
                    pictures=(picture_in(root, name, file=file, entry=f"entry {key}"),),
                    part=kind,
                    category=file.stem,
                )


MM_SAFETYBENCH: Final = Benchmark(
    name="mm_safetybench",
    title="MM-SafetyBench",
    source="github.com/isXinLiu/MM-SafetyBench",
    licence="CC BY-NC 4.0",
    layout="processed_questions/NN-Name.json and imgs/NN-Name/{SD,SD_TYPO,TYPO}/ID.jpg, or both "
    "within data/",
    read=read,
    rubrics=("attack",),
)
