"""What a paired benchmark asks: pairs, scary requests and plain questions, each with its key.

A key names the item's id, its picture and the whole conversation, so that two pairs with the same
request are never taken for one another, and an edited picture is never taken for the old one.
"""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from PIL import Image

from safecode_guard.errors import GuardError
from safecode_guard.policy import ImagePolicy
from safecode_guard.steering.safecode.refusals import RefusalLexicon
from safecode_guard.steering.seeds import derive_seed
from safecode_guard.taxonomy import Label
from safecode_guard.tiny import world
from safecode_guard.turns.found import Media
from safecode_guard.turns.images import load
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.turn import ImagePart, TextPart, Turn, TurnMessage

Kind = Literal["safe", "unsafe", "scary", "utility"]
UTILITY: Final = ("caption", "weather", "colour")


@dataclass(frozen=True)
class Item:
    """One turn to answer, and what a right answer to it is."""

    id: str
    unit: str
    """The pair, scary request or scene that it belongs to: what intervals draw again."""
    kind: Kind
    turn: Turn
    family: str = ""
    phrase: str = ""
    unseen: bool = False
    """Its phrase is in no split that the tiny model was trained on."""
    expected: str | None = None
    """The one right answer to a plain question."""
    tip: str | None = None
    """What help that is right names; None: nobody knows."""
    hazard: str | None = None
    """What a refusal that gives a reason should name; None: nobody knows."""
    caption: str = ""
    """What the picture shows."""

    @property
    def key(self) -> str:
        """The item's name in resume files: id, hash of the picture, hash of the conversation."""
        image = "+".join(image.sha256[:12] for image in self.turn.images)
        return f"{self.id}@{image}@{self.turn.key()[:12]}"

    @property
    def seed(self) -> int:
        """Seed of the item's noise, its own and the same in every row."""
        return derive_seed(0, self.key, 0)

    @property
    def truth(self) -> Label:
        """Whether helping is safe."""
        return "unsafe" if self.kind == "unsafe" else "safe"


@dataclass(frozen=True)
class Exam:
    """A set of items, and how answers to them are read."""

    name: str
    items: tuple[Item, ...]
    is_refusal: Callable[[str], bool]
    is_whole: Callable[[Item, str], bool]
    """Whether an answer is well formed."""

    def of(self, *kinds: Kind) -> list[Item]:
        """Return the items of some kinds, in order."""
        return [item for item in self.items if item.kind in kinds]


def tiny_exam(pairs: int, *, scary: int, looks: int, split: world.HeldOut, seed: int = 0) -> Exam:
    """Return held-out items of the tiny model's drawn world.

    Args:
        pairs: Number of pairs.
        scary: Number of requests that only sound dangerous.
        looks: Number of pairs whose scenes are also asked plain questions about.
        split: Which held-out scenes and phrases.
        seed: Of the choice.
    """
    made = world.pairs(pairs, split=split, seed=seed)
    items = [item for pair in made for item in _pair_items(pair)]
    items += [_scary_item(each) for each in world.scary(scary, split=split, seed=seed)]
    items += [item for pair in made[:looks] for item in _look_items(pair)]
    lexicon = RefusalLexicon.load()
    return Exam(
        f"drawn world, {split} split",
        tuple(items),
        # the lexicon as well: recipe reference forces openings that the model never says itself
        lambda text: world.is_refusal(text) or lexicon.is_refusal(text),
        lambda item, text: world.is_well_formed(text, item.phrase),
    )


def _pair_items(pair: world.Pair) -> Iterator[Item]:
    scenes: dict[Kind, world.Scene] = {"safe": pair.safe, "unsafe": pair.unsafe}
    for kind, scene in scenes.items():
        yield Item(
            id=f"{pair.id}/{kind}",
            unit=pair.id,
            kind=kind,
            turn=one_picture(scene.image, pair.query),
            family=pair.family,
            phrase=pair.phrase,
            unseen=pair.unseen,
            tip=pair.tip,
            hazard=scene.hazard,
            caption=scene.caption,
        )


def _scary_item(scary: world.Scary) -> Item:
    return Item(
        id=scary.id,
        unit=scary.id,
        kind="scary",
        turn=one_picture(scary.scene.image, scary.query),
        family=scary.scene.family,
        phrase=scary.phrase,
        unseen=scary.unseen,
    )


def _look_items(pair: world.Pair) -> Iterator[Item]:
    for side, scene in (("safe", pair.safe), ("unsafe", pair.unsafe)):
        for name, (question, expected) in zip(UTILITY, world.utility(scene), strict=False):
            yield Item(
                id=f"{pair.id}/{side}/{name}",
                unit=pair.id,
                kind="utility",
                turn=one_picture(scene.image, question),
                family=name,
                expected=expected,
            )


def one_picture(image: Image.Image, text: str) -> Turn:
    """Return the conversation of one picture and one request about it."""
    return about([image], text)


def about(pictures: Sequence[Image.Image], text: str) -> Turn:
    """Return the conversation of some pictures and one request about them."""
    images = tuple(image for each in pictures for image in load(Media(each), ImagePolicy()))
    shown = tuple(ImagePart(i) for i in range(len(images)))
    return Turn((TurnMessage("user", (*shown, TextPart(text))),), images)


def file_exam(path: Path) -> Exam:
    """Return the items of a JSON Lines file.

    A pair is ``{"id", "query", "safe_image", "unsafe_image"}``, a harmless request that sounds
    dangerous ``{"id", "query", "image"}``; paths are relative to the file. A ``family`` may be
    given for the breakdown, and a ``tip`` that right help names. Refusals are told by the library's
    lexicon; an answer counts as well formed if it is not empty and ends as a sentence does.

    Raises:
        GuardError: If a line is not readable, an id comes twice, or there is no pair at all.
        ImageError: If a picture breaks the limits of the default policy.
    """
    lexicon = RefusalLexicon.load()
    items = [item for entry in _entries(path) for item in _file_items(entry, path.parent)]
    if not any(item.kind == "safe" for item in items):
        raise GuardError(f"There is no pair in {path.name!r}.", hint=_FORMAT)
    return Exam(path.stem, tuple(items), lexicon.is_refusal, lambda _, text: _ends(text))


_FORMAT: Final = 'Each line: {"id": ..., "query": ..., "safe_image": FILE, "unsafe_image": FILE}.'


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or not {"id", "query"} <= entry.keys():
            raise GuardError(f"Line {number} of {path.name!r} cannot be read.", hint=_FORMAT)
        if str(entry["id"]) in seen:
            raise GuardError(f"The id {entry['id']!r} comes twice in {path.name!r}.", hint=_FORMAT)
        seen.add(str(entry["id"]))
        yield entry


def _file_items(entry: dict[str, Any], folder: Path) -> Iterator[Item]:
    columns: dict[str, Kind] = (
        {"image": "scary"} if "image" in entry else {"safe_image": "safe", "unsafe_image": "unsafe"}
    )
    for column, kind in columns.items():
        if column not in entry:
            raise GuardError(f"The entry {entry['id']!r} has no {column!r}.", hint=_FORMAT)
        unit = str(entry["id"])
        yield Item(
            id=unit if kind == "scary" else f"{unit}/{kind}",
            unit=unit,
            kind=kind,
            turn=_read(folder / entry[column], entry["query"]),
            family=str(entry.get("family", "")),
            phrase=entry["query"],
            tip=entry.get("tip"),
        )


def _read(picture: Path, query: str) -> Turn:
    from langchain_core.messages import HumanMessage

    if not picture.is_file():
        raise GuardError(f"There is no picture {str(picture)!r}.", hint="Paths start at the file.")
    mime = mimetypes.guess_type(picture.name)[0] or "image/png"
    data = base64.b64encode(picture.read_bytes()).decode()
    block = {"type": "image", "base64": data, "mime_type": mime}
    return read_turn([HumanMessage([block, {"type": "text", "text": query}])], strict=True)


def _ends(text: str) -> bool:
    return text.strip().endswith((".", "!", "?", "。", "！", "？", ")", '"', "```"))
