"""What is in a tool's output: messages in every form that LangChain takes, and loose pictures.

A command may write messages out as mappings, pairs or texts, in an update that is a mapping, a list
of pairs, a dataclass or a model. Each is read into a message once: that one is judged, and that one
is withheld. What is not changed stays the very object that the tool returned.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Final

from langchain_core.messages import BaseMessage, ToolMessage, convert_to_messages
from langgraph.types import Command, Send
from pydantic import BaseModel

from safecode_guard.turns import artifacts, embedded
from safecode_guard.turns.found import Text
from safecode_guard.turns.signatures import MIN_BASE64

Change = Callable[[BaseMessage], BaseMessage]

_DEPTH: Final = 12
"""How deep messages are looked for; what is deeper is looked through for pictures as a whole."""
_ROLES: Final = frozenset({"human", "user", "ai", "assistant", "system", "developer", "tool"})
_PLAIN: Final = frozenset({bool, int, float, type(None)})


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of an output that a model may be shown, as a message."""

    message: BaseMessage
    judged: ToolMessage
    """The same as a part of a tool's result, whatever role it is shown in."""
    loose: bool = False
    """It is a picture outside of any message: in another key of the state, say."""


@dataclass(frozen=True)
class Output:
    """A tool's output, read once."""

    given: Any
    _read: dict[int, Piece] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Any) -> Output:
        """Read an output."""
        read = cls(given)
        read.changed(lambda message: message)
        return read

    @property
    def pieces(self) -> list[Piece]:
        """All parts that may be shown, in order."""
        return list(self._read.values())

    def changed(self, change: Change) -> Any:
        """Return the output with its messages changed; what is left as it is stays the same."""
        return self._changed(self.given, change, 0)

    def _changed(self, value: Any, change: Change, depth: int) -> Any:
        if type(value) in _PLAIN:
            return value
        piece = self._read.get(id(value)) or _piece_of(value, whole=depth > _DEPTH)
        if piece is not None:
            self._read[id(value)] = piece
            changed = change(piece.message)
            return value if changed is piece.message else _in_place_of(piece, changed)
        inside = None if depth > _DEPTH else _inside(value)
        if inside is None:
            return value
        parts, rebuild = inside
        after = [self._changed(part, change, depth + 1) for part in parts]
        return value if all(a is b for a, b in zip(after, parts, strict=True)) else rebuild(after)


def message_of(value: Any) -> BaseMessage | None:
    """Return the message that a value is, or writes out as a mapping or a pair."""
    if isinstance(value, BaseMessage):
        return value
    if not (_is_written_out(value) or _is_pair(value)):
        return None
    try:
        form = dict(value) if isinstance(value, Mapping) else tuple(value)
        return convert_to_messages([form])[0]
    except (ValueError, NotImplementedError, KeyError, TypeError):
        return None


def pairs_of(update: Any) -> list[tuple[str, Any]] | None:
    """Return the keys of a state that an update writes, and the values; None: it names none."""
    if isinstance(update, Mapping):
        return list(update.items())
    if isinstance(update, list | tuple):
        named = all(isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) for p in update)
        return list(update) if named else None
    return list(_fields(update).items()) or None


def _is_written_out(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    if value.get("lc") == 1 and value.get("type") == "constructor":
        return isinstance(value.get("kwargs"), Mapping)
    return "content" in value and ("role" in value or "type" in value)


def _is_pair(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2 or not isinstance(value[0], str):
        return False
    # a list of two texts is two messages
    is_one = isinstance(value, tuple) or not isinstance(value[1], str)
    return is_one and value[0].lower() in _ROLES


def _piece_of(value: Any, *, whole: bool) -> Piece | None:
    message = message_of(value)
    if isinstance(message, ToolMessage):
        return Piece(message, message)
    if message is not None:
        return Piece(message, ToolMessage(content=message.content, tool_call_id=""))
    if isinstance(value, str):
        return _loose(value) if len(value) >= MIN_BASE64 and holds_media(value) else None
    if not whole and _inside(value) is not None:
        return None
    return _loose("", value) if artifacts.images_in(value) else None


def _loose(text: str, artifact: Any = None) -> Piece:
    message = ToolMessage(content=text, artifact=artifact, tool_call_id="")
    return Piece(message, message, loose=True)


def holds_media(text: str) -> bool:
    """Return whether there is a picture in a text."""
    return any(not isinstance(found, Text) for found in embedded.split(text))


def _in_place_of(piece: Piece, changed: BaseMessage) -> Any:
    if not piece.loose:
        return changed
    return changed.content if piece.message.content else getattr(changed, "artifact", None)


def _inside(value: Any) -> tuple[list[Any], Callable[[list[Any]], Any]] | None:
    """Return what a value holds, and how to make the value again with other parts."""
    if isinstance(value, Command):
        return [value.update, value.goto], lambda p: replace(value, update=p[0], goto=p[1])
    if isinstance(value, Send):
        return [value.arg], lambda p: Send(value.node, p[0], timeout=value.timeout)
    if isinstance(value, Mapping):
        return list(value.values()), lambda p: dict(zip(value, p, strict=True))
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return list(value), value._make
    if isinstance(value, list | tuple | set | frozenset | deque):
        kind = next(k for k in (list, tuple, set, frozenset, deque) if isinstance(value, k))
        return list(value), kind
    if named := _fields(value):
        return list(named.values()), lambda p: _with(value, dict(zip(named, p, strict=True)))
    return None


def _fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass or a model."""
    if isinstance(value, type):
        return {}
    if isinstance(value, BaseModel):
        return dict(value.__dict__)
    if is_dataclass(value):
        return {each.name: getattr(value, each.name, None) for each in fields(value)}
    return {}


def _with(value: Any, changes: Mapping[str, Any]) -> Any:
    made = copy.copy(value)
    for name, each in changes.items():
        object.__setattr__(made, name, each)
    return made
