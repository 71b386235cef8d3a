"""What a public benchmark asks: a conversation, its pictures, and whether helping is safe.

Pictures are files, or bytes of a table's cell, and are decoded for one conversation at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safecode_guard.bench.paired.items import Item
from safecode_guard.bench.public.questions import Question
from safecode_guard.errors import DataError, ImageError
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.found import Media
from safecode_guard.turns.images import CheckedImage, load
from safecode_guard.turns.turn import ImagePart, Part, TextPart, Turn, TurnMessage

Side = Literal["safe", "unsafe"]
Picture = Path | bytes


@dataclass(frozen=True)
class PublicItem:
    """One conversation to be had, and whether helping with it is safe."""

    id: str
    unit: str
    """The pair or the entry that it belongs to: what intervals draw again."""
    side: Side
    turns: tuple[str, ...]
    """What the user says, turn by turn; the model's own answers come in between."""
    pictures: tuple[Picture, ...] = ()
    """Stand before the first text."""
    part: str = ""
    """Of the benchmark, where its figures are told apart."""
    category: str = ""
    caption: str = ""
    """Of the pictures, for a grader that is told one."""
    questions: tuple[Question, ...] = ()
    """Asked after the dialogue, each by itself."""

    @property
    def missing(self) -> list[Path]:
        """The picture files that are not there."""
        return [p for p in self.pictures if isinstance(p, Path) and not p.is_file()]

    def images(self) -> tuple[CheckedImage, ...]:
        """Return the pictures, decoded.

        Raises:
            DataError: If one cannot be read, or is over the limits of the default policy.
        """
        found: list[CheckedImage] = []
        for picture in self.pictures:
            named = str(picture) if isinstance(picture, Path) else None
            where = f" ({named})" if named else ""
            try:
                data = picture.read_bytes() if isinstance(picture, Path) else picture
                found += load(Media(data), ImagePolicy())
            except (OSError, ImageError) as error:
                told = error.message if isinstance(error, ImageError) else str(error)
                raise DataError(
                    f"A picture of {self.id!r} cannot be read{where}: {told}",
                    hint="Fetch it again, or leave the entry out.",
                    file=named,
                    entry=self.id,
                ) from error
        return tuple(found)

    def asked(self, images: tuple[CheckedImage, ...], answers: Sequence[str]) -> Item:
        """Return the turn that follows some answers, as what is asked of a model.

        Args:
            images: The item's pictures, decoded.
            answers: To the turns before it; as many as there are.
        """
        messages: list[TurnMessage] = []
        for number, text in enumerate(self.turns[: len(answers) + 1]):
            shown: tuple[Part, ...] = tuple(ImagePart(i) for i in range(len(images)))
            messages.append(
                TurnMessage("user", (*(shown if not number else ()), TextPart(text))),
            )
            if number < len(answers):
                messages.append(TurnMessage("assistant", (TextPart(answers[number]),)))
        name = f"{self.id}#{len(answers)}" if len(self.turns) > 1 else self.id
        return self._item(name, Turn(tuple(messages), images))

    def questioned(
        self, images: tuple[CheckedImage, ...], answers: Sequence[str], number: int
    ) -> Item:
        """Return one of the questions as what is asked of a model: a conversation of its own.

        Args:
            images: The item's pictures, decoded.
            answers: To all turns.
            number: Of the question.
        """
        text = TextPart(self.questions[number].about(self.turns, answers))
        shown = tuple(ImagePart(i) for i in range(len(images)))
        turn = Turn((TurnMessage("user", (*shown, text)),), images)
        return self._item(f"{self.id}?{number}", turn)

    def _item(self, name: str, turn: Turn) -> Item:
        return Item(id=name, unit=self.unit, kind=self.side, turn=turn, family=self.category)


@dataclass(frozen=True)
class Benchmark:
    """A public benchmark: where its data is to be had, and how it is read and told."""

    name: str
    title: str
    source: str
    """Where its data set is to be had."""
    licence: str
    layout: str
    """What has to be in the directory."""
    read: Callable[[Path], Iterator[PublicItem]]
    """Raises `DataError`."""
    rubrics: tuple[str, ...] = ()
    """What a grader says of its answers, if there is one; see `graders.RUBRICS`."""
    paired: bool = False
    """Each unit has a safe and an unsafe side."""
    questions: bool = False
    """Dialogues are followed by questions, each with one right answer."""
    pictures: bool = True
    needs_data: bool = True
    """False: it is made here, and no directory is read."""

    @property
    def hint(self) -> str:
        """What to do about data that is not there or not in its form."""
        return (
            f"{self.title} is to be had at {self.source} (licence: {self.licence}): {self.layout}."
        )
