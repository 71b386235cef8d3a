"""What tools return: the messages in it, found, replaced, and given back.

A tool returns a text, blocks, a message, a command with messages, or a list of these; frameworks
turn the rest into text. Whatever it is, what the model will be shown of it are messages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from langchain_core.messages import BaseMessage, ToolMessage, convert_to_messages
from langchain_core.messages.tool import ToolOutputMixin
from langchain_core.tools.base import TOOL_MESSAGE_BLOCK_TYPES
from langgraph.types import Command, Send

from safecode_guard.errors import GuardError
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.pictures import PictureStore
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.turn import TextPart

_DEPTH: Final = 6
"""How deep messages are looked for in a command."""

Change = Callable[[BaseMessage], BaseMessage]


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
    found: list[BaseMessage] = []

    def note(message: BaseMessage) -> BaseMessage:
        found.append(message)
        return message

    mapped(output, note)
    return found


def mapped(output: Any, change: Change, *, depth: int = 0) -> Any:
    """Return an output with its messages changed; what is left as it is stays the same object."""
    if isinstance(output, BaseMessage):
        return change(output)
    if depth > _DEPTH:
        return output
    deeper = depth + 1
    if isinstance(output, Command):
        update = mapped(output.update, change, depth=deeper)
        goto = mapped(output.goto, change, depth=deeper)
        same = update is output.update and goto is output.goto
        return output if same else replace(output, update=update, goto=goto)
    if isinstance(output, Send):
        arg = mapped(output.arg, change, depth=deeper)
        return output if arg is output.arg else Send(output.node, arg, timeout=output.timeout)
    if isinstance(output, Mapping):
        return _mapped_mapping(output, change, deeper)
    if isinstance(output, list | tuple):
        changed = [mapped(item, change, depth=deeper) for item in output]
        same = all(a is b for a, b in zip(changed, output, strict=True))
        return output if same else type(output)(changed) if type(output) is tuple else changed
    return output


def to_be_judged(messages: Sequence[BaseMessage], id: str | None) -> list[BaseMessage]:
    """Return messages as parts of one tool's result, whatever role they are shown in."""
    return [
        message
        if isinstance(message, ToolMessage)
        else ToolMessage(content=message.content, tool_call_id=id or "")
        for message in messages
    ]


def withheld(message: BaseMessage, reason: str, pictures: PictureStore) -> BaseMessage:
    """Return a message without its pictures and artifact; its words are kept.

    Of one that has neither, the words are what was judged: they are withheld.
    """
    note = f"[withheld: {reason}]"
    shown = message if isinstance(message, ToolMessage) else to_be_judged([message], None)[0]
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
    if isinstance(output, Command) and output.graph is None and isinstance(output.update, dict):
        return replace(output, update={**output.update, **updates})
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

    return mapped(output, note_it)


_READ_ALL: Final = ImagePolicy(max_images=10_000)


def _mapped_mapping(output: Mapping[Any, Any], change: Change, depth: int) -> Any:
    if message := written_out(output):
        changed = change(message)
        return output if changed is message else changed
    changed_items = {key: mapped(value, change, depth=depth) for key, value in output.items()}
    same = all(changed_items[key] is value for key, value in output.items())
    return output if same else changed_items


def written_out(value: Mapping[Any, Any]) -> BaseMessage | None:
    """Return the message that a mapping writes out, such as ``{"role": ..., "content": ...}``."""
    if "content" not in value or not ("role" in value or "type" in value):
        return None
    try:
        return convert_to_messages([dict(value)])[0]
    except (ValueError, NotImplementedError, KeyError, TypeError):
        return None


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
