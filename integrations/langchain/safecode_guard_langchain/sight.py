"""Which media a message holds, by their hashes; each message is looked through once."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable, Sequence
from operator import is_
from threading import Lock
from typing import Any, Final, NamedTuple

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from PIL import Image

from safecode_guard.errors import GuardError
from safecode_guard.turns.drafts import Unjudgeable, look_through
from safecode_guard.turns.found import Encoded, Link, Source
from safecode_guard.turns.loading import Place
from safecode_guard.turns.pictures import PictureStore
from safecode_guard_langchain.snapshots import Kept, alike, frozen, unchanged

REFUSED = "refused:"
"""Begins the mark of what no judge can look at."""

_NONE: Final[frozenset[str]] = frozenset()


class Sight:
    """Looks through messages, and remembers what it saw as long as the message lives."""

    def __init__(self, pictures: PictureStore) -> None:
        self._pictures = pictures
        self._seen: dict[int, _Seen] = {}
        self._rows: dict[int, _Row] = {}
        self._lock = Lock()

    def media(self, message: BaseMessage) -> frozenset[str]:
        """Return a mark for each medium of a message: the same for the same bytes."""
        if isinstance(message.content, str) and not isinstance(message, ToolMessage):
            return _NONE
        return self._seen_in(message).look.marks

    def look(self, message: BaseMessage) -> Look:
        """Return what a message shows, and as what it was seen: one look for both."""
        content = message.content
        if isinstance(content, str) and not isinstance(message, ToolMessage):
            return Look(_NONE, Kept(message.type, content))
        return self._seen_in(message).look

    def look_at(self, messages: Sequence[BaseMessage]) -> list[Look]:
        """Look at messages; those that began the conversation before are compared in one go."""
        if not messages:
            return []
        row = self._rows.get(id(messages[0]), _NO_ROW)
        if not row.begins(messages):
            row = _NO_ROW
        new = messages[len(row.looks) :]
        made_of = frozen(_columns(new))  # before they are looked at
        looks = [*row.looks, *map(self.look, new)]
        if new:
            self._remember_row(messages[0], row.longer(new, made_of, looks))
        return looks

    def _seen_in(self, message: BaseMessage) -> _Seen:
        known = self._seen.get(id(message))
        if known is not None and known.is_of(message):
            return known
        made_of = frozen(_parts(message))  # before it is looked at: what changes meanwhile is seen
        marks = frozenset(self._look(message))
        return self._remember(message, made_of, Look(marks, Kept(message.type, made_of[0])))

    def shows(self, messages: Iterable[BaseMessage]) -> bool:
        """Return whether there is any medium in messages."""
        return any(self.media(message) for message in messages)

    def in_all(self, messages: Iterable[BaseMessage]) -> frozenset[str]:
        """Return the marks of all media in messages."""
        return frozenset().union(*map(self.media, messages))

    def shows_the_same(self, given: Sequence[BaseMessage], known: Sequence[Kept]) -> bool:
        """Return whether messages show what others did; False: they have to be looked at."""
        return len(given) == len(known) and all(map(alike, given, known))

    def _look(self, message: BaseMessage) -> Iterable[str]:
        try:
            pieces = look_through(plain(message), 0, self._pictures).pieces
        except GuardError:
            return [REFUSED + _hash(repr(message.content))]
        places = [_mark(piece.media.source) for piece in pieces if isinstance(piece, Place)]
        if any(isinstance(piece, Unjudgeable) for piece in pieces):
            places.append(REFUSED + _hash(repr(message.content)))
        return places

    def _remember_row(self, first: BaseMessage, row: _Row) -> None:
        key = id(first)
        with self._lock:
            alive = weakref.ref(first, lambda _: self._rows.pop(key, None))
            self._rows[key] = row._replace(messages=[alive, *row.messages[1:]])

    def _remember(self, message: BaseMessage, made_of: Any, look: Look) -> _Seen:
        key = id(message)
        with self._lock:
            alive = weakref.ref(message, lambda _: self._seen.pop(key, None))
            seen = _Seen(alive, made_of, _artifact(message), look)
            self._seen[key] = seen
        return seen


class Look(NamedTuple):
    """What one look at a message found."""

    marks: frozenset[str]
    """Of its media."""
    kept: Kept
    """As what it was seen."""


class _Seen(NamedTuple):
    """What was found in a message, and what the message was made of then."""

    message: weakref.ref[BaseMessage]
    made_of: Any
    artifact: Any
    look: Look

    def is_of(self, message: BaseMessage) -> bool:
        """Return whether a message is the same, and as it was."""
        same = self.message() is message and _artifact(message) is self.artifact
        return same and unchanged(_parts(message), self.made_of)


class _Row(NamedTuple):
    """Messages as a conversation began with them, and what a look at each has found."""

    messages: list[weakref.ref[BaseMessage]]
    made_of: list[list[Any]]
    """Contents, and what stands beside each."""
    artifacts: list[Any]
    looks: list[Look]

    def begins(self, messages: Sequence[BaseMessage]) -> bool:
        """Return whether messages begin with these, and each is as it was."""
        given = messages[: len(self.looks)]
        return (
            len(given) == len(self.looks)
            and all(map(is_, given, [ref() for ref in self.messages]))
            and all(map(is_, map(_artifact, given), self.artifacts))
            and unchanged(_columns(given), self.made_of)
        )

    def longer(
        self, new: Sequence[BaseMessage], made_of: list[list[Any]], looks: list[Look]
    ) -> _Row:
        """Return the row with more messages; ``looks`` are those of all."""
        return _Row(
            [*self.messages, *map(weakref.ref, new)],
            [[*old, *more] for old, more in zip(self.made_of, made_of, strict=True)],
            [*self.artifacts, *map(_artifact, new)],
            looks,
        )


_NO_ROW: Final = _Row([], [[], []], [], [])


_WITHOUT: Final = frozenset({HumanMessage, AIMessage, SystemMessage})


def _artifact(message: BaseMessage) -> Any:
    """Return what a tool left beside its content; asking pydantic for what is not there is slow."""
    if type(message) in _WITHOUT and not message.__pydantic_extra__:
        return None
    return getattr(message, "artifact", None)


def _columns(messages: Sequence[BaseMessage]) -> list[list[Any]]:
    """Return what messages are made of: two lists, and none for each message."""
    return [[m.content for m in messages], [m.additional_kwargs for m in messages]]


def _parts(message: BaseMessage) -> list[Any]:
    return [message.content, message.additional_kwargs]


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
