"""Looks through one message: what it says, where its media are, and what goes back with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from safecode_guard.errors import (
    ImageError,
    TemplateError,
    UnreadableCall,
    UnsupportedMedia,
    listed,
)
from safecode_guard.turns import artifacts, embedded
from safecode_guard.turns.blocks import Within, walk
from safecode_guard.turns.found import Found, Link, Media, Opaque, Refused, Text
from safecode_guard.turns.images import located
from safecode_guard.turns.loading import Place
from safecode_guard.turns.pictures import PictureStore
from safecode_guard.turns.plain import plain_arguments, plain_state
from safecode_guard.turns.turn import Role, State, ToolCall

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

OUTSIDE: Final = -1
"""The block index of what stands outside a message's content."""

COMPUTER_OUTPUT: Final = "computer_call_output"
"""The type, in a message's kwargs, of a screenshot whose URL is the whole content."""

_ROLES: Final[Mapping[str, Role]] = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}

# Kwargs that no integration sends to a model: a parsed copy of the answer, an agent's own notes.
_UNSENT_KWARGS: Final = frozenset({"parsed", "lc_source", "lc_data"})
_FORMS: Final = ("model_provider", "output_version")


@dataclass(frozen=True, eq=False)
class Unjudgeable:
    """Something refused, and where it stands."""

    refused: Refused
    message_index: int
    block_index: int

    @property
    def error(self) -> ImageError:
        """Why, with its position."""
        return located(self.refused.error, self.message_index, self.block_index)


Piece = Text | Opaque | Place | Unjudgeable


@dataclass(frozen=True)
class Draft:
    """A message that has been looked through, before its media are loaded."""

    role: Role
    pieces: tuple[Piece, ...]
    calls: tuple[ToolCall, ...]
    tool_call_id: str | None
    name: str | None
    state: State


def is_removal(message: BaseMessage) -> bool:
    """Return whether a message only asks for another one to be taken away."""
    kind = getattr(message, "type", None)
    return isinstance(kind, str) and kind == "remove"


def look_through(message: BaseMessage, index: int, pictures: PictureStore | None) -> Draft:
    """Look through a message: what it says, and all that stands beside its content."""
    if not hasattr(message, "content") or not isinstance(getattr(message, "type", None), str):
        raise TemplateError(
            f"Item {index} of the conversation is no message: {type(message).__name__}.",
            hint="See langchain_core.messages.convert_to_messages.",
        )
    role = _role(message, index)
    pieces = list(_content_pieces(message, role, index, pictures))
    calls, refused_calls = _tool_calls(message, index)
    kwargs, refused_kwargs = _kwargs(message)
    pieces += [Unjudgeable(each, index, OUTSIDE) for each in (*refused_calls, *refused_kwargs)]
    pieces += [
        Place(media, index, OUTSIDE, shown=False)
        for media in artifacts.images_in(getattr(message, "artifact", None))
    ]
    return Draft(
        role=role,
        pieces=tuple(pieces),
        calls=calls,
        tool_call_id=_text(message, "tool_call_id"),
        name=_text(message, "name"),
        state=State(
            kwargs=kwargs,
            metadata=_metadata(message) if role == "assistant" else {},
            id=_text(message, "id"),
            failed=_text(message, "status") == "error",
            plain=isinstance(message.content, str),
        ),
    )


def _content_pieces(
    message: BaseMessage, role: Role, index: int, pictures: PictureStore | None
) -> Iterator[Piece]:
    content: Any = message.content
    if role == "tool" and isinstance(content, str) and _is_computer_output(message):
        yield Place(Media(Link(content)), index, 0)
        return
    within = Within(tool=role == "tool", assistant=role == "assistant")
    for block_index, block in enumerate(content if isinstance(content, list) else [content]):
        for found in walk(block, within):
            for piece in _split(found, pictures):
                if isinstance(piece, Media):
                    yield Place(piece, index, block_index)
                elif isinstance(piece, Refused):
                    yield Unjudgeable(piece, index, block_index)
                elif isinstance(piece, Text) or role == "assistant" or piece.anywhere:
                    yield piece


def _split(found: Found, pictures: PictureStore | None) -> tuple[Found, ...]:
    """Return what was found, with the images that hide in a tool's text."""
    if not isinstance(found, Text) or not found.from_tool:
        return (found,)
    split = embedded.split
    pieces = pictures.pieces(found.text, split) if pictures else split(found.text)
    return pieces if len(pieces) > 1 or isinstance(pieces[0], Media) else (found,)


def _is_computer_output(message: BaseMessage) -> bool:
    kwargs: Any = getattr(message, "additional_kwargs", None)
    kind = kwargs.get("type") if isinstance(kwargs, Mapping) else None
    return isinstance(kind, str) and kind == COMPUTER_OUTPUT


def _role(message: BaseMessage, index: int) -> Role:
    """Return the role of a message or a chunk of one; a chat message names its own."""
    kind = message.type.removesuffix("MessageChunk").lower()
    name = str(getattr(message, "role", "")).lower() if kind == "chat" else kind
    if name not in _ROLES:
        raise TemplateError(
            f"Message {index} has the role {name[:40]!r}, which no model knows.",
            hint=f"Use one of {listed(_ROLES)}.",
        )
    return _ROLES[name]


def _text(message: BaseMessage, field: str) -> str | None:
    value = getattr(message, field, None)
    return value if isinstance(value, str) else None


def _metadata(message: BaseMessage) -> dict[str, str]:
    given: Any = getattr(message, "response_metadata", None)
    if not isinstance(given, Mapping):
        return {}
    return {key: given[key] for key in _FORMS if isinstance(given.get(key), str)}


def _kwargs(message: BaseMessage) -> tuple[dict[str, Any], list[Refused]]:
    given: Any = getattr(message, "additional_kwargs", None)
    if not isinstance(given, Mapping):
        return {}, []
    sent = {key: value for key, value in given.items() if key not in _UNSENT_KWARGS}
    try:
        return plain_state(sent), []
    except UnsupportedMedia as error:
        return {}, [Refused("additional_kwargs", error)]


def _tool_calls(message: BaseMessage, index: int) -> tuple[tuple[ToolCall, ...], list[Refused]]:
    given: Any = getattr(message, "tool_calls", None)
    calls: list[ToolCall] = []
    refused: list[Refused] = []
    for number, call in enumerate(given if isinstance(given, list | tuple) else ()):
        name, arguments = _named(call, index)
        try:
            plain = _arguments(arguments, name)
        except UnsupportedMedia as error:
            refused.append(Refused("tool_call", error))
            continue
        id = call.get("id")
        named = id if isinstance(id, str) and id else f"call_{index}_{number}"
        calls.append(ToolCall(named, name, plain))
    return tuple(calls), refused


def _named(call: Any, index: int) -> tuple[str, Mapping[Any, Any]]:
    name = call.get("name") if isinstance(call, Mapping) else None
    if not isinstance(name, str) or not name:
        raise UnreadableCall(
            f"A tool call of message {index} has no name.", hint="Give it 'name' and 'args'."
        )
    arguments = call.get("args")
    if arguments is None:
        return name, {}
    if not isinstance(arguments, Mapping):
        raise UnreadableCall(
            f"The arguments of the call of {name[:40]!r} are no mapping.",
            hint="Give them as {name: value}.",
        )
    return name, arguments


def _arguments(given: Mapping[Any, Any], name: str) -> dict[str, Any]:
    """Return a copy of arguments that has one canonical form."""
    try:
        plain: dict[str, Any] = plain_arguments(given)
        json.dumps(plain, sort_keys=True)
    except (RecursionError, TypeError, ValueError) as error:
        raise UnreadableCall(
            f"The arguments of the call of {name[:40]!r} are no plain data.",
            hint="Send flat arguments whose keys are text.",
        ) from error
    return plain
