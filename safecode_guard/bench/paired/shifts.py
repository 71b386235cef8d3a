"""Ordinary changes to what is shown and asked, each by its name, seeded, and the same for both
halves of a pair.

Pictures are changed by `safecode_guard.tiny.changes`. Wordings use the templates that no training
has seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from PIL import Image

from safecode_guard.bench.paired.items import Exam, Item, about
from safecode_guard.errors import GuardError, likely
from safecode_guard.tiny import changes, world
from safecode_guard.tiny.prompts import CAPTION_PROMPT
from safecode_guard.tiny.scenery import FAMILIES
from safecode_guard.turns.turn import ImagePart, TextPart, Turn, TurnMessage

Shift = Callable[[Item, random.Random], Turn]
"""The turn of an item, changed."""

_STYLES: Final = ("formal", "casual", "polite")
_NAMED: Final = (
    *("framed", "cropped", "scaled", "rotated", "compressed", "grey", "tinted"),
    *("letterboxed", "posterised"),
)


def _picture(change: changes.Change, item: Item, rng: random.Random) -> Turn:
    return about([change(item.turn.pixels[0], rng)], item.turn.query)


def _second_picture(item: Item, rng: random.Random, *, first: bool) -> Turn:
    """Show a harmless scene of the drawn world beside the item's own, before or after it."""
    family = rng.choice(tuple(FAMILIES))
    other = world.draw(world.scene_seed(rng, "test"), family, False).image
    own: Image.Image = item.turn.pixels[0]
    return about([other, own] if first else [own, other], item.turn.query)


def _asked(style: str, item: Item, rng: random.Random) -> Turn:
    return _worded(item, changes.asked(style, item.phrase, rng, held_out=True))


def _misspelt(item: Item, rng: random.Random) -> Turn:
    return _worded(item, changes.misspelt(item.turn.query, rng))


def _upper_case(item: Item, rng: random.Random) -> Turn:
    return _worded(item, item.turn.query.upper())


def _follow_up(item: Item, rng: random.Random) -> Turn:
    """Ask about the picture only after it was described."""
    first = TurnMessage("user", (ImagePart(0), TextPart(CAPTION_PROMPT)))
    said = TurnMessage("assistant", (TextPart(item.caption),))
    then = TurnMessage("user", (TextPart(item.turn.query),))
    return Turn((first, said, then), item.turn.images)


def _worded(item: Item, text: str) -> Turn:
    return about(list(item.turn.pixels), text)


_PICTURES: Final = {**changes.PICTURES, **changes.HELD_OUT_PICTURES}
SHIFTS: Final[Mapping[str, Shift]] = {
    **{name: partial(_picture, _PICTURES[name]) for name in _NAMED},
    "second_before": partial(_second_picture, first=True),
    "second_after": partial(_second_picture, first=False),
    **{style: partial(_asked, style) for style in _STYLES},
    "misspelt": _misspelt,
    "upper_case": _upper_case,
    "follow_up": _follow_up,
}


def shifts_named(names: str) -> list[str]:
    """Return shifts by a comma-separated list of names; ``all`` are all of them.

    Raises:
        GuardError: If there is no such shift.
    """
    wanted = [*SHIFTS] if names == "all" else names.split(",")
    for name in wanted:
        if name not in SHIFTS:
            raise GuardError(f"There is no shift {name!r}.", hint=likely(name, ["all", *SHIFTS]))
    return list(dict.fromkeys(wanted))


def shifted(exam: Exam, name: str) -> Exam:
    """Return the pairs of an exam under a shift; other kinds of items are left out.

    Raises:
        GuardError: If it needs to know what an item's file does not say.
    """
    shift, items = SHIFTS[name], exam.of("safe", "unsafe")
    if (name in _STYLES or name == "follow_up") and not all(item.caption for item in items):
        raise GuardError(
            f"The shift {name!r} needs phrases and captions, which {exam.name!r} has not.",
            hint="Use the drawn world, or another shift.",
        )
    return replace(
        exam, name=f"{exam.name}, {name}", items=tuple(_item(shift, name, i) for i in items)
    )


def _item(shift: Shift, name: str, item: Item) -> Item:
    rng = random.Random(f"{name}|{item.unit}")
    return replace(item, id=f"{item.id}/{name}", turn=shift(item, rng))
