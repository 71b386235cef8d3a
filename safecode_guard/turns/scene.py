"""The scene: what a judge is shown, in one canonical form for every stage and every judge.

A judge looks at pictures and an instruction, whatever conversation they come from. One form means
that a threshold holds at every step of an agent, and that the scene is the cache's key: what the
judge did not see is not in it, and what it saw is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal

from safecode_guard.turns.borders import without_border
from safecode_guard.turns.images import CheckedImage
from safecode_guard.turns.turn import ImagePart, Part, TextPart, Turn, TurnMessage

SCENE_IMAGES: Final = 4
"""Pictures that a judge is shown together, if the policy does not say otherwise."""

SCENE_REQUESTS: Final = 4
"""Requests of the user that a judge is shown, if the policy does not say otherwise."""

Shown = Literal["together", "each", "both"]
"""How several pictures are judged: together, each by itself, or in both ways."""

_SHORT: Final = 4
"""Words up to which a request may merely confirm what was said before it."""
FURTHEST: Final = 64
"""Requests at most, however many of them are short."""
_WORDS: Final = re.compile(r"\w+")


@dataclass(frozen=True)
class Scene:
    """Pictures and the whole instruction about them.

    Example:
        >>> scene = scene_of(turn)                      # doctest: +SKIP
        >>> scene.instruction, len(scene.images)        # doctest: +SKIP
        ('How do I run faster here?', 1)
    """

    images: tuple[CheckedImage, ...]
    """The pictures, in the order of the conversation."""
    indices: tuple[int, ...]
    """Which of the turn's pictures they are."""
    system: str
    """The task that the system prompt sets; empty if there is none."""
    request: str
    """What the user asks, after what was asked before it: a line for each message."""

    @property
    def instruction(self) -> str:
        """The whole instruction: the system prompt's task, then the request."""
        return "\n\n".join(filter(None, (self.system, self.request)))

    @cached_property
    def turn(self) -> Turn:
        """The scene as a conversation: the system prompt, the pictures, the request."""
        pictures: tuple[Part, ...] = tuple(ImagePart(i) for i in range(len(self.images)))
        user = TurnMessage("user", (*pictures, TextPart(self.request)))
        system = (TurnMessage("system", (TextPart(self.system),)),) if self.system else ()
        return Turn((*system, user), self.images)

    @cached_property
    def trimmed(self) -> Scene:
        """The scene with its pictures taken out of plain borders; itself where there are none."""
        images = tuple(_trimmed(image) for image in self.images)
        return self if images == self.images else replace(self, images=images)

    @cached_property
    def digest(self) -> str:
        """The sha256 of all that is shown: picture hashes, task and request."""
        shown = [[image.sha256, image.frame] for image in self.images]
        text = json.dumps([shown, self.system, self.request], separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def scene_of(turn: Turn, *, most: int = SCENE_IMAGES, requests: int = SCENE_REQUESTS) -> Scene:
    """Return the scene of a turn: its newest pictures and requests, and the task it is set."""
    first = max(0, len(turn.images) - most)
    return _scene(turn, range(first, len(turn.images)), requests)


def scenes_of(
    turn: Turn,
    *,
    most: int = SCENE_IMAGES,
    requests: int = SCENE_REQUESTS,
    reach: int | None = None,
    shown: Shown = "together",
) -> list[Scene]:
    """Return the scenes that have to be judged so that every picture is; the turn's own first.

    Earlier pictures stand in groups that keep their bounds while a conversation grows, so that
    each is judged once: they are aligned to the place of a picture in the conversation, pictures
    left out before it included.

    Args:
        turn: The conversation.
        most: Pictures in one scene.
        requests: Requests in each scene, the one in force included.
        reach: Only as many of the newest pictures have to be covered; None: all.
        shown: Whether pictures are judged in groups, each by itself, or in both ways.
    """
    count = len(turn.images)
    first = 0 if reach is None else max(0, count - reach)
    alone = [_scene(turn, range(i, i + 1), requests) for i in reversed(range(first, count))]
    if shown == "each" and alone:
        return alone
    groups = [scene_of(turn, most=most, requests=requests)]
    groups += _earlier(turn, first, most, requests)
    seen = {scene.indices for scene in groups}
    return groups + [s for s in alone if shown == "both" and s.indices not in seen]


def _earlier(turn: Turn, start: int, most: int, requests: int) -> Iterator[Scene]:
    """Yield the groups of pictures before the newest ones."""
    count = len(turn.images)
    older = max(0, count - most)
    while start < older:
        end = start + most - (turn.left_out_images + start) % most
        yield _scene(turn, range(start, min(end, count)), requests)
        start = end


def _scene(turn: Turn, indices: range, requests: int) -> Scene:
    images = tuple(turn.images[i] for i in indices)
    system = "\n\n".join(m.text.strip() for m in turn.messages if m.role == "system").strip()
    return Scene(images, tuple(indices), system, "\n".join(_requests(turn, requests)).strip())


def _requests(turn: Turn, most: int) -> list[str]:
    """Return the newest requests, oldest first, and what stands before each that is short.

    What is asked last may only be dangerous, or only be understood, in the light of what was asked
    before. "Yes, please" says nothing by itself: what is asked stands in the offer before it, and
    in the request that led to the offer, so that a short request reaches further back.
    """
    texts: list[str] = []
    for count, (request, offer) in enumerate(_exchanges(turn), 1):
        texts.append(request)
        most += _is_short(request)
        if count >= min(most, FURTHEST):
            break
        texts += [offer] if _is_short(request) else []
    return [text for text in reversed(texts) if text]


def _is_short(request: str) -> bool:
    """Return whether a request may merely confirm what was said before it.

    A question of three words or four does not: "Where do I start?" accepts no offer.
    """
    words = len(_WORDS.findall(request))
    return words <= _SHORT and (words < _SHORT - 1 or not request.rstrip().endswith(("?", "？")))


def _trimmed(image: CheckedImage) -> CheckedImage:
    inside = without_border(image.pixels)
    return image if inside is None else image.with_pixels(inside, view="trimmed")


def _exchanges(turn: Turn) -> Iterator[tuple[str, str]]:
    """Yield each request, the newest first, with the assistant's text that stands before it."""
    users: list[str] = []
    offers: list[str] = []
    for message in reversed(turn.messages):
        if message.role == "user":
            if offers:
                yield _joined(users), _joined(offers)
                users, offers = [], []
            users.append(message.text)
        elif message.role == "assistant" and users:
            offers.append(message.text)
    if users:
        yield _joined(users), ""


def _joined(newest_first: list[str]) -> str:
    return "\n".join(reversed(newest_first)).strip()
