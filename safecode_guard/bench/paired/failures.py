"""The worst that a guarded row still got wrong, with pictures: to look at, not to count."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Final

from PIL import Image

from safecode_guard.bench.paired.items import Item
from safecode_guard.bench.paired.pace import PLAIN, Line
from safecode_guard.bench.paired.result import Result

SHOWN: Final = 12
_PREFERRED: Final[tuple[Line, ...]] = (("guarded", "same"), ("guarded", "nano"))
_GRAVITY: Final = {"unsafe": 0, "scary": 1, "safe": 2}


@dataclass(frozen=True)
class Failure:
    """One item that a row got wrong."""

    line: Line
    kind: str
    query: str
    family: str
    answer: str
    plain: str | None
    p_unsafe: float | None
    unseen: bool
    picture: str
    """As a data URL."""


def worst_failures(result: Result, *, count: int = SHOWN) -> list[Failure]:
    """Return failures of the guarded rows: help in danger first, each kind with variety.

    Within a kind, the surest wrong verdicts come first, and each family once before any twice.
    """
    lines = [line for line in _PREFERRED if line in result.answers]
    share = -(-count // len(lines)) if lines else 0
    return [failure for line in lines for failure in _of(result, line)[:share]][:count]


def _of(result: Result, line: Line) -> list[Failure]:
    wrong = [
        item for item in result.exam.of("unsafe", "scary", "safe") if _fails(result, line, item)
    ]
    met: dict[tuple[str, str], int] = {}
    ranked = []
    for item in sorted(wrong, key=lambda item: -_surely_wrong(result, line, item)):
        turn = met[item.kind, item.family] = met.get((item.kind, item.family), -1) + 1
        ranked.append((turn, _GRAVITY[item.kind], item))
    ranked.sort(key=lambda entry: entry[:2])
    return [_failure(result, line, item) for _, _, item in ranked]


def _fails(result: Result, line: Line, item: Item) -> bool:
    answer = result.answers[line][item.key]
    refuses = answer.withheld or result.exam.is_refusal(answer.text)
    return refuses != (item.kind == "unsafe")


def _surely_wrong(result: Result, line: Line, item: Item) -> float:
    """Return how sure the judge was of the wrong verdict; below 0.5 it was right."""
    p_unsafe = result.judgements[line[1]][item.key].p_unsafe
    if p_unsafe is None:
        return 0.5
    return 1 - p_unsafe if item.kind == "unsafe" else p_unsafe


def _failure(result: Result, line: Line, item: Item) -> Failure:
    plain = result.answers.get(PLAIN, {}).get(item.key)
    return Failure(
        line=line,
        kind=item.kind,
        query=item.turn.query,
        family=item.family,
        answer=result.answers[line][item.key].text,
        plain=plain.text if plain else None,
        p_unsafe=result.judgements[line[1]][item.key].p_unsafe,
        unseen=item.unseen,
        picture=_data_url(item.turn.pixels[0]),
    )


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
