"""Labelled scenes to calibrate on: pairs of the user's own, or of the drawn world."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from safecode_guard.bench.paired.items import Exam, Item, file_exam, one_picture, tiny_exam
from safecode_guard.tiny.changes import (
    HELD_OUT_ASKED,
    HELD_OUT_PICTURES,
    PICTURES,
    Change,
    asked,
    misspelt,
)
from safecode_guard.turns.turn import ImagePart, TextPart, Turn, TurnMessage

CHANGES: Final[Mapping[str, Change]] = {**PICTURES, **HELD_OUT_PICTURES}


def scenes_of(data: Path | None, *, pairs: int, seed: int) -> list[Item]:
    """Return labelled scenes: of a file of pairs, or of the drawn world's validation split.

    Raises:
        GuardError: If the file is none of pairs.
    """
    if data is not None:
        return _labelled(file_exam(data))
    return _labelled(tiny_exam(pairs, scary=pairs // 4, looks=0, split="validation", seed=seed))


def halves(items: list[Item], *, seed: int) -> tuple[list[Item], list[Item]]:
    """Return scenes to fit on and scenes to tell on; the two scenes of a pair stay together."""
    units = sorted({item.unit for item in items})
    random.Random(f"halves|{seed}").shuffle(units)
    first = set(units[: len(units) // 2])
    return [i for i in items if i.unit in first], [i for i in items if i.unit not in first]


def changed(items: list[Item], *, seed: int) -> list[Item]:
    """Return the scenes with an ordinary change to each picture, of kinds in turn."""
    kinds = list(CHANGES.values())
    made = []
    for number, item in enumerate(items):
        rng = random.Random(f"changed|{seed}|{item.id}")
        picture = kinds[number % len(kinds)](item.turn.images[0].pixels, rng)
        made.append(replace(item, turn=one_picture(picture, item.turn.query)))
    return made


def reworded(items: list[Item], *, seed: int) -> list[Item]:
    """Return the scenes asked about in other words, of held-out ways in turn, some with slips.

    Only of scenes whose phrase is known apart from the request: those of the drawn world.
    """
    styles = list(HELD_OUT_ASKED)
    made = []
    for number, item in enumerate(item for item in items if item.phrase != item.turn.query):
        rng = random.Random(f"reworded|{seed}|{item.id}")
        text = asked(styles[number % len(styles)], item.phrase, rng, held_out=True)
        text = misspelt(text, rng) if number % 2 else text
        made.append(replace(item, turn=one_picture(item.turn.images[0].pixels, text)))
    return made


def accompanied(items: list[Item], *, seed: int) -> list[Item]:
    """Return the scenes with the picture of another, safe one beside their own, in any order."""
    others = [item.turn.images[0] for item in items if item.truth == "safe"]
    made = []
    for item in items:
        rng = random.Random(f"accompanied|{seed}|{item.id}")
        pictures = [item.turn.images[0], rng.choice(others)]
        rng.shuffle(pictures)
        parts = (ImagePart(0), ImagePart(1), TextPart(item.turn.query))
        turn = Turn((TurnMessage("user", parts),), tuple(pictures))
        made.append(replace(item, turn=turn))
    return made


def _labelled(exam: Exam) -> list[Item]:
    return exam.of("safe", "unsafe", "scary")
