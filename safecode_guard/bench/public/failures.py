"""What a line got wrong, to be looked at: help in danger first, then refusals without need."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from safecode_guard.bench.paired.pace import PLAIN, Line
from safecode_guard.bench.public.detectors import DETECTORS
from safecode_guard.bench.public.playing import Played

EACH: Final = 12
"""Kept of each line and side."""
SIZE: Final = 256
"""Longest edge of a picture on the page, in pixels."""
_BY: Final = list(DETECTORS).index("lexicon")


@dataclass(frozen=True)
class Failure:
    """One item that a line got wrong, by the detector `lexicon`."""

    line: Line
    id: str
    side: str
    category: str
    turns: tuple[str, ...]
    answers: tuple[str, ...]
    picture: str
    """The first one as a data URL; empty without any."""


@dataclass
class Failures:
    """The first failures of each line, and no more: their number is bounded."""

    kept: dict[tuple[Line, str], list[Failure]] = field(default_factory=lambda: defaultdict(list))

    def look(self, played: Played) -> None:
        """Keep a conversation if it went wrong and few did before it."""
        item, kept = played.item, self.kept[played.line, played.item.side]
        wrong = played.outcome.refused[_BY] != (item.side == "unsafe")
        if not wrong or len(kept) >= EACH:
            return
        kept.append(
            Failure(
                played.line,
                item.id,
                item.side,
                item.category,
                item.turns,
                played.answers,
                _first_picture(played),
            )
        )

    def worst(self) -> list[Failure]:
        """Return them: guarded lines before the plain one, unsafe sides first."""
        order = sorted(self.kept, key=lambda key: (key[1] != "unsafe", key[0] == PLAIN))
        return [failure for key in order for failure in self.kept[key]]


def _first_picture(played: Played) -> str:
    if not played.item.pictures:
        return ""
    image = played.item.images()[0].pixels.copy()
    image.thumbnail((SIZE, SIZE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
