"""What tools return: what becomes of it, what is withheld of it, and what is written beside it.

A tool returns a text, blocks, a message, a command with messages, or a list of these; frameworks
turn the rest into text. Whatever it is, what the model will be shown of it are messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.messages.tool import ToolOutputMixin
from langchain_core.tools.base import TOOL_MESSAGE_BLOCK_TYPES
from langgraph.types import Command

from safecode_guard.errors import GuardError
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.pictures import PictureStore
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.turn import TextPart
from safecode_guard_langchain.outputs import Output, pairs_of

OWN_KEYS: Final = "safecode_"
"""Begins the keys of a state that are the guard's own: no tool writes them."""


def as_message(
    content: Any, artifact: Any = None, *, name: str, id: str | None, status: str = "success"
) -> Any:
    """Return what a tool's raw result becomes before a model is shown it, as LangChain does it."""
    if isinstance(content, ToolOutputMixin) or _all(content, ToolOutputMixin):
        return content
    return ToolMessage(
        content=_content_of(content),
        artifact=artifact,
        tool_call_id=id or "",
        name=name,
        status=status,
    )


def messages_of(output: Any) -> list[BaseMessage]:
    """Return the messages in a tool's output, in order."""
    return [piece.message for piece in Output.of(output).pieces if not piece.loose]


def without_own_keys(output: Any) -> Any:
    """Return what a tool returned without what it would write to the guard's own keys."""
    if isinstance(output, list) and any(isinstance(each, Command) for each in output):
        kept = [without_own_keys(each) for each in output]
        return output if all(a is b for a, b in zip(kept, output, strict=True)) else kept
    pairs = pairs_of(output.update) if isinstance(output, Command) else None
    if not pairs or not any(key.startswith(OWN_KEYS) for key, _ in pairs):
        return output
    return replace(output, update={k: v for k, v in pairs if not k.startswith(OWN_KEYS)})


def as_result(message: BaseMessage) -> ToolMessage:
    """Return a message as a part of a tool's result, whatever role it is shown in."""
    if isinstance(message, ToolMessage):
        return message
    return ToolMessage(content=message.content, tool_call_id="")


def withheld(message: BaseMessage, reason: str, pictures: PictureStore) -> BaseMessage:
    """Return a message without its pictures and artifact; its words are kept.

    Of one that has neither, the words are what was judged: they are withheld.
    """
    note = f"[withheld: {reason}]"
    shown = message if isinstance(message, ToolMessage) else as_result(message)
    try:
        turn = read_turn([shown], _READ_ALL, pictures=pictures)
    except GuardError:
        return _replaced(message, note, note)
    holds_media = bool(turn.images or turn.skipped or turn.left_out)
    words = [p.text if isinstance(p, TextPart) else note for p in turn.messages[0].parts]
    if not holds_media or not turn.messages[0].image_indices:
        words.append(note)
    if not holds_media:
        return _replaced(message, note, note)
    if isinstance(message.content, str):
        return _replaced(message, "\n".join(words), note)
    return _replaced(message, [{"type": "text", "text": word} for word in words], note)


def with_updates(output: Any, updates: Mapping[str, Any]) -> Any:
    """Return an output that also writes to the state what was found about it."""
    if not updates:
        return output
    if isinstance(output, ToolMessage):
        return Command(update={"messages": [output], **updates})
    if isinstance(output, Command) and output.graph is None:
        pairs = pairs_of(output.update)
        if pairs is not None and len(dict(pairs)) == len(pairs):
            return replace(output, update={**dict(pairs), **updates})
    given = list(output) if isinstance(output, list) else [output]
    return [*given, Command(update=dict(updates))]


def noted(output: Any, note: str, id: str | None) -> Any:
    """Return an output whose message for a call begins with a note."""

    def note_it(message: BaseMessage) -> BaseMessage:
        if not isinstance(message, ToolMessage) or message.tool_call_id != id:
            return message
        content: Any = message.content
        if isinstance(content, str):
            return message.model_copy(update={"content": f"{note}\n{content}"})
        return message.model_copy(update={"content": [{"type": "text", "text": note}, *content]})

    return Output.of(output).changed(note_it)


_READ_ALL: Final = ImagePolicy(max_images=10_000)


def _replaced(message: BaseMessage, content: Any, artifact: str) -> BaseMessage:
    update: dict[str, Any] = {"content": content, "additional_kwargs": {}}
    if isinstance(message, ToolMessage):
        update["status"] = "error"
        update["artifact"] = None if message.artifact is None else artifact
    return message.model_copy(update=update)


def _content_of(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(_is_block(item) for item in value):
        return list(value)
    try:
        return json.dumps(value, ensure_ascii=False)
    except Exception:  # as LangChain does: whatever has no JSON form is written by str
        return str(value)


def _is_block(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("type") in TOOL_MESSAGE_BLOCK_TYPES
    return isinstance(value, str)


def _all(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, kind) for v in value)
