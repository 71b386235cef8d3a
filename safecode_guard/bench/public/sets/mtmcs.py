"""MTMCS-Bench (arXiv 2601.06757): dialogues of three turns whose intent escalates or switches.

After each dialogue come its questions: choices about either side, true or false about the unsafe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from safecode_guard.bench.public.items import Benchmark, Picture, PublicItem, Side
from safecode_guard.bench.public.questions import LETTERS, Question
from safecode_guard.bench.public.reading import Entry, checked, read_json, read_table
from safecode_guard.bench.public.tables import picture_of
from safecode_guard.errors import DataError

Split = Literal["type_a", "type_b"]
SPLITS: Final[tuple[Split, Split]] = ("type_a", "type_b")
SIDES: Final[tuple[Side, Side]] = ("safe", "unsafe")
CAPTIONS: Final = "MTMCS_Bench_captions.json"


class Dialogue(Entry):
    """Three turns, and what stands in the place of one of them on either side."""

    r1: str = ""
    r2: str = Field(min_length=1)
    r3: str = ""
    safe_r1: str | None = None
    unsafe_r1: str | None = None
    safe_r3: str | None = None
    unsafe_r3: str | None = None

    def turns(self, split: Split, side: Side) -> tuple[str, ...]:
        """Return the user's turns: the last one differs in type A, the first one in type B."""
        first = (self.safe_r1 if side == "safe" else self.unsafe_r1) if split == "type_b" else None
        last = (self.safe_r3 if side == "safe" else self.unsafe_r3) if split == "type_a" else None
        return (first or self.r1, self.r2, last or self.r3)


class Choice(Entry):
    """One multiple-choice question."""

    question: str = Field(min_length=1)
    options: list[str] = Field(min_length=2, max_length=len(LETTERS))
    question_type: str = Field(pattern=r"(?i)^(un)?safe")
    ground_truth: str = Field(pattern=f"(?i)^[{LETTERS}]$")


class Claim(Entry):
    """One claim that is true or false."""

    question: str = Field(min_length=1)
    ground_truth: bool


class Row(Entry):
    """One row of a split."""

    id: str | int
    image: Any
    multimodal_dialogue: Dialogue
    unimodal_dialogue: Dialogue
    multimodal_mcq: list[Choice] = Field(default_factory=list)
    unimodal_mcq: list[Choice] = Field(default_factory=list)
    multimodal_tf: list[Claim] = Field(default_factory=list)
    unimodal_tf: list[Claim] = Field(default_factory=list)

    def questions(self, way: str, side: Side) -> tuple[Question, ...]:
        """Return what is asked after one side's dialogue."""
        multimodal = way == "multimodal"
        choices = self.multimodal_mcq if multimodal else self.unimodal_mcq
        claims = self.multimodal_tf if multimodal else self.unimodal_tf
        mine = [each for each in choices if each.question_type.lower().startswith(side)]
        found = [Question(c.question, c.ground_truth.upper(), tuple(c.options)) for c in mine]
        if side == "unsafe":
            found += [Question(c.question, str(c.ground_truth).upper()) for c in claims]
        return tuple(found)


def read(folder: Path) -> Iterator[PublicItem]:
    """Yield the dialogues with their picture and, in words alone, without.

    Raises:
        DataError: If a file or a field is missing or wrong.
    """
    captions = _captions(folder)
    for split in SPLITS:
        for file, entry, cells in read_table(folder, split):
            row = checked(Row, cells, file=file, entry=entry)
            picture = picture_of(row.image, file=file, entry=entry, field="image")
            ways = (
                ("multimodal", row.multimodal_dialogue, (picture,)),
                ("unimodal", row.unimodal_dialogue, ()),
            )
            for way, dialogue, pictures in ways:
                told = captions.get(str(row.id), "") if pictures else ""
                for side in SIDES:
                    turns = dialogue.turns(split, side)
                    _require_turns(turns, file, entry, f"{way}_dialogue")
                    yield _item(row, split, way, side, turns, pictures, told)


def _item(
    row: Row,
    split: Split,
    way: str,
    side: Side,
    turns: tuple[str, ...],
    pictures: tuple[Picture, ...],
    caption: str,
) -> PublicItem:
    return PublicItem(
        id=f"{split}/{way}/{row.id}/{side}",
        unit=f"{split}/{row.id}",
        side=side,
        turns=turns,
        pictures=pictures,
        part=f"{split}/{way}",
        caption=caption,
        questions=row.questions(way, side),
    )


def _require_turns(turns: tuple[str, ...], file: Path, entry: str, field: str) -> None:
    if not all(turns):
        raise DataError(
            f"{file.name!r}, {entry}: {field!r} has an empty turn {turns.index('') + 1}.",
            file=str(file),
            entry=entry,
            field=field,
        )


def _captions(folder: Path) -> Mapping[str, str]:
    file = folder / CAPTIONS
    found = read_json(file) if file.is_file() else {}
    if not isinstance(found, dict):
        raise DataError(f"{file.name!r} is no object of captions by id.", file=str(file))
    return {str(key): str(value) for key, value in found.items()}


MTMCS: Final = Benchmark(
    name="mtmcs",
    title="MTMCS-Bench",
    source="huggingface.co/datasets/ND-25/MCS-bench",
    licence="see its page",
    layout="type_a*.parquet and type_b*.parquet in the directory or in data/, or .jsonl with paths "
    f"of pictures; {CAPTIONS} for graders, if there is one",
    read=read,
    rubrics=("awareness", "helpfulness"),
    questions=True,
)
