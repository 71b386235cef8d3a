"""Splits messages into smaller ones, until a judge can be shown all their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage


def halves(messages: Sequence[BaseMessage]) -> list[list[BaseMessage]]:
    """Return messages in two halves; one message as two, each with half of its blocks.

    What cannot be split holds more pictures than anyone may be shown: it becomes a block that
    nothing knows, which counts as media that cannot be judged.
    """
    if len(messages) > 1:
        middle = len(messages) // 2
        return [list(messages[:middle]), list(messages[middle:])]
    message = messages[0]
    content: Any = message.content
    artifact = getattr(message, "artifact", None)
    if artifact is not None and content:
        return [[_with(message, content)], [_with(message, "", artifact)]]
    if artifact is not None:
        parts = _split(artifact)
        return [[_with(message, "", part)] for part in parts] or [[_unjudgeable(message)]]
    return [[_with(message, part)] for part in _split(content)] or [[_unjudgeable(message)]]


def _split(value: Any) -> list[Any]:
    if not isinstance(value, list | tuple) or len(value) < 2:
        return []
    middle = len(value) // 2
    return [list(value[:middle]), list(value[middle:])]


def _with(message: BaseMessage, content: Any, artifact: Any = None) -> BaseMessage:
    update = {"content": content}
    if hasattr(message, "artifact"):
        update["artifact"] = artifact
    return message.model_copy(update=update)


def _unjudgeable(message: BaseMessage) -> BaseMessage:
    return _with(message, [{"type": "more pictures than can be judged"}])
