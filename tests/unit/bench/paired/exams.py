"""Small exams and asked models for the tests of the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from safecode_guard.bench.paired.items import Exam, Item, Kind, one_picture


def item(unit: str, kind: Kind, *, colour: int = 0, family: str = "path", **rest: Any) -> Item:
    """Return an item whose picture is one colour."""
    id = unit if kind == "scary" else f"{unit}/{kind}"
    turn = one_picture(Image.new("RGB", (8, 8), (colour, 0, 0)), rest.pop("query", "How?"))
    return Item(id, unit, kind, turn, family=family, **rest)


def exam(items: Sequence[Item]) -> Exam:
    """Return an exam that takes "no..." for a refusal and what ends in "." for well formed."""
    return Exam(
        "made by hand",
        tuple(items),
        lambda text: text.startswith("no"),
        lambda _, text: text.endswith("."),
    )
