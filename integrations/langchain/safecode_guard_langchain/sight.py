"""Which media a message holds, by their hashes; each message is looked through once."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable
from threading import Lock
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from PIL import Image

from safecode_guard.errors import GuardError
from safecode_guard.turns.drafts import Unjudgeable, look_through
from safecode_guard.turns.found import Encoded, Link, Source
from safecode_guard.turns.loading import Place
from safecode_guard.turns.pictures import PictureStore

REFUSED = "refused:"
"""Begins the mark of what no judge can look at."""


class Sight:
    """Looks through messages, and remembers what it saw as long as the message lives."""

    def __init__(self, pictures: PictureStore) -> None:
        self._pictures = pictures
        self._seen: dict[int, tuple[weakref.ref[BaseMessage], Any, frozenset[str]]] = {}
        self._lock = Lock()

    def media(self, message: BaseMessage) -> frozenset[str]:
        """Return a mark for each medium of a message: the same for the same bytes."""
        if isinstance(message.content, str) and not isinstance(message, ToolMessage):
            return frozenset()
        shape = _shape(message)
        known = self._seen.get(id(message))
        if known is not None and known[0]() is message and known[1] == shape:
            return known[2]
        marks = frozenset(self._look(message))
        self._remember(message, shape, marks)
        return marks

    def in_all(self, messages: Iterable[BaseMessage]) -> frozenset[str]:
        """Return the marks of all media in messages."""
        return frozenset().union(*map(self.media, messages))

    def _look(self, message: BaseMessage) -> Iterable[str]:
        try:
            pieces = look_through(plain(message), 0, self._pictures).pieces
        except GuardError:
            return [REFUSED + _hash(repr(message.content))]
        places = [_mark(piece.media.source) for piece in pieces if isinstance(piece, Place)]
        if any(isinstance(piece, Unjudgeable) for piece in pieces):
            places.append(REFUSED + _hash(repr(message.content)))
        return places

    def _remember(self, message: BaseMessage, shape: Any, marks: frozenset[str]) -> None:
        key = id(message)
        with self._lock:
            gone = weakref.ref(message, lambda _: self._seen.pop(key, None))
            self._seen[key] = (gone, shape, marks)


def plain(message: BaseMessage) -> BaseMessage:
    """Return a message without the calls it makes: a scene is not made of them."""
    if not isinstance(message, AIMessage):
        return message
    return AIMessage(content=message.content, id=message.id, response_metadata=_form_of(message))


def _form_of(message: AIMessage) -> dict[str, Any]:
    """Return what says in whose form the blocks are."""
    given = message.response_metadata
    return {key: given[key] for key in ("model_provider", "output_version") if key in given}


def _shape(message: BaseMessage) -> Any:
    """Return what tells cheaply whether a message is as it was: comparing finds the same objects.

    Middlewares change messages in place, down to the values of a block.
    """
    content: Any = message.content
    artifact = getattr(message, "artifact", None)
    if isinstance(content, list):
        content = [list(b.values()) if isinstance(b, dict) else b for b in content]
    return content, id(artifact)


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
