"""Which media a message holds, by their hashes; each message is looked through once."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any, Final, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from PIL import Image

from safecode_guard.errors import GuardError
from safecode_guard.turns.drafts import Unjudgeable, look_through
from safecode_guard.turns.found import Encoded, Link, Source
from safecode_guard.turns.loading import Place
from safecode_guard.turns.pictures import PictureStore

REFUSED = "refused:"
"""Begins the mark of what no judge can look at."""


Sample = tuple[int, Any, Any]
"""The length and some letters of something in a block."""


class Sight:
    """Looks through messages, and remembers what it saw as long as the message lives."""

    def __init__(self, pictures: PictureStore) -> None:
        self._pictures = pictures
        self._seen: dict[int, _Seen] = {}
        self._lock = Lock()

    def media(self, message: BaseMessage) -> frozenset[str]:
        """Return a mark for each medium of a message: the same for the same bytes."""
        if isinstance(message.content, str) and not isinstance(message, ToolMessage):
            return frozenset()
        known = self._seen.get(id(message))
        if known is not None and known.is_of(message):
            return known.marks
        marks = frozenset(self._look(message))
        self._remember(message, marks)
        return marks

    def shows(self, messages: Iterable[BaseMessage]) -> bool:
        """Return whether there is any medium in messages."""
        return any(self.media(message) for message in messages)

    def in_all(self, messages: Iterable[BaseMessage]) -> frozenset[str]:
        """Return the marks of all media in messages."""
        return frozenset().union(*map(self.media, messages))

    def shows_the_same(self, given: Sequence[BaseMessage], known: Sequence[BaseMessage]) -> bool:
        """Return whether messages show what others showed; False: they have to be looked at.

        What a callback is given are copies in another form, so samples are compared.
        """
        if len(given) != len(known):
            return False
        return all(self._alike(a, b) for a, b in zip(given, known, strict=True))

    def _alike(self, given: BaseMessage, known: BaseMessage) -> bool:
        if given is known or given.content is known.content:
            return True
        if given.type != known.type or type(given.content) is not type(known.content):
            return False
        if isinstance(given.content, str):
            return bool(given.content == known.content)
        seen = self._seen.get(id(known))  # the message has been looked through just before
        before = samples(known) if seen is None else seen.samples
        after = samples(given)
        return len(after) == len(before) and all(map(set.issuperset, before, after))

    def _look(self, message: BaseMessage) -> Iterable[str]:
        try:
            pieces = look_through(plain(message), 0, self._pictures).pieces
        except GuardError:
            return [REFUSED + _hash(repr(message.content))]
        places = [_mark(piece.media.source) for piece in pieces if isinstance(piece, Place)]
        if any(isinstance(piece, Unjudgeable) for piece in pieces):
            places.append(REFUSED + _hash(repr(message.content)))
        return places

    def _remember(self, message: BaseMessage, marks: frozenset[str]) -> None:
        key = id(message)
        with self._lock:
            alive = weakref.ref(message, lambda _: self._seen.pop(key, None))
            self._seen[key] = _Seen(alive, *_contents(message), marks, samples(message))


class _Seen(NamedTuple):
    """What was found in a message, and what the message was made of then."""

    message: weakref.ref[BaseMessage]
    content: Any
    blocks: list[Any]
    values: list[Any]
    artifact: Any
    marks: frozenset[str]
    samples: list[set[Sample]]

    def is_of(self, message: BaseMessage) -> bool:
        """Return whether a message is the same, and as it was.

        Middlewares change messages in place, down to the values of a block. Lists that hold the
        same objects compare without looking into them.
        """
        content: Any = message.content
        if self.message() is not message or content is not self.content:
            return False
        if getattr(message, "artifact", None) is not self.artifact:
            return False
        if not isinstance(content, list):
            return True
        return content == self.blocks and _values(content) == self.values


def _contents(message: BaseMessage) -> tuple[Any, list[Any], list[Any], Any]:
    content: Any = message.content
    blocks = list(content) if isinstance(content, list) else []
    return content, blocks, _values(blocks), getattr(message, "artifact", None)


def _values(blocks: list[Any]) -> list[Any]:
    return [list(block.values()) if isinstance(block, dict) else block for block in blocks]


def samples(message: BaseMessage) -> list[set[Sample]]:
    """Return samples of each block of a message."""
    found: list[set[Sample]] = []
    for block in message.content:
        into: set[Sample] = set()
        _sample(block, into)
        found.append(into)
    return found


def plain(message: BaseMessage) -> BaseMessage:
    """Return a message without the calls it makes: a scene is not made of them."""
    if not isinstance(message, AIMessage):
        return message
    return AIMessage(content=message.content, id=message.id, response_metadata=_form_of(message))


def _form_of(message: AIMessage) -> dict[str, Any]:
    """Return what says in whose form the blocks are."""
    given = message.response_metadata
    return {key: given[key] for key in ("model_provider", "output_version") if key in given}


def _mark(source: Source) -> str:
    """Return the hash of a source's bytes as they are written; of a URL, its own."""
    if isinstance(source, Encoded):
        return _hash(source.text)
    if isinstance(source, Link):
        head, _, payload = source.url.partition(",")
        return _hash(payload if head.lstrip()[:5].lower() == "data:" else source.url)
    if isinstance(source, Image.Image):
        return _hash(source.tobytes())
    return _hash(source)


def _hash(value: str | bytes) -> str:
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return hashlib.sha256(data).hexdigest()[:32]


def _sample(value: Any, into: set[Sample]) -> None:
    """Take samples of everything in a block that could be a medium, or say where one is.

    It is done for every picture of the conversation at every step: no text is copied.
    """
    if isinstance(value, str | bytes):
        head = value.find(",", 0, _HEAD) + 1 if value[:5] == "data:" else 0  # type: ignore[arg-type]
        size = len(value) - head
        start = size - _TAIL if size > _TAIL else 0
        into.add((size, value[head + start :], value[head :: size // 64 + 1]))
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in _NAMES:
                _sample(item, into)
    elif isinstance(value, list | tuple):
        for item in value:
            _sample(item, into)
    elif value is not None:
        into.add((0, type(value), id(value)))


_TAIL: Final = 64
_HEAD: Final = 256
_NAMES: Final = frozenset(
    {"type", "mime_type", "media_type", "source_type", "format", "filename", "detail"}
)
"""Keys of a block whose values only name what is under the others."""
