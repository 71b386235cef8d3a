"""Watches that nothing runs, and nothing is shown, past the guard.

A middleware further in may bring a tool of its own, or add a picture just before the model is
called. LangChain announces every start to callbacks, and a callback that raises stops it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.messages import BaseMessage
from langgraph.errors import GraphBubbleUp

from safecode_guard_langchain.rails import Ruling


class Stopped(GraphBubbleUp):
    """Something was about to happen that may not; retries and fallbacks let this through."""

    def __init__(self, ruling: Ruling) -> None:
        super().__init__(ruling.reason)
        self.ruling = ruling


class _Watch(BaseCallbackHandler):
    """A callback whose errors stop what it is told of."""

    raise_error = True


class ModelWatch(_Watch):
    """Looks at what a model is about to be shown."""

    def __init__(self, look: Callable[[Sequence[BaseMessage], Any], None]) -> None:
        self._look = look

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        """Stop a model that would be shown what nobody has judged.

        Raises:
            Stopped: If it may not be shown.
        """
        for each in messages:
            self._look(each, kwargs.get("invocation_params") or {})


class ToolWatch(_Watch):
    """Looks at tools that start."""

    def __init__(self, look: Callable[[dict[str, Any]], None]) -> None:
        self._look = look

    def on_tool_start(
        self, serialized: dict[str, Any], input_str: str, *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Stop a tool whose call was not let through.

        Raises:
            Stopped: If it may not run.
        """
        args = kwargs.get("inputs")
        self._look(
            {
                "name": (serialized or {}).get("name") or kwargs.get("name") or "",
                "args": args if isinstance(args, dict) else {"__arg1": input_str},
                "id": kwargs.get("tool_call_id"),
            }
        )


def watched(callbacks: Any, watch: BaseCallbackHandler, *, inherit: bool) -> Any:
    """Return callbacks with a watch among them.

    Args:
        callbacks: As they stand in a config.
        watch: The watch.
        inherit: Whether it also watches what runs further in.
    """
    if isinstance(callbacks, BaseCallbackManager):
        manager = callbacks.copy()
        manager.add_handler(watch, inherit)
        return manager
    return [*(callbacks or []), watch]


def shows_the_same(given: Sequence[BaseMessage], known: Sequence[BaseMessage]) -> bool:
    """Return whether messages show what others showed; False: they have to be looked at.

    What a callback is given is a copy in another form, so places, ids and samples are compared.
    """
    if len(given) != len(known):
        return False
    return all(_alike(a, b) for a, b in zip(given, known, strict=True))


def _alike(given: BaseMessage, known: BaseMessage) -> bool:
    if given is known or given.content is known.content:
        return True
    if given.type != known.type or type(given.content) is not type(known.content):
        return False
    if isinstance(given.content, str) or isinstance(known.content, str):
        return given.content == known.content
    if len(given.content) != len(known.content):
        return False
    pairs = zip(given.content, known.content, strict=True)
    return all(a is b or set(_leaves(a)) <= set(_leaves(b)) for a, b in pairs)


def _leaves(block: Any) -> Iterator[tuple[int, Any, Any]]:
    """Yield samples of everything in a block that could be a medium, or say where one is."""
    if isinstance(block, str | bytes):
        payload = block
        if isinstance(block, str) and block.startswith("data:"):
            payload = block.partition(",")[2]
        size = len(payload)
        yield size, payload[-64:], payload[:: max(1, size // 64)]
    elif isinstance(block, dict):
        for key, value in block.items():
            if key not in _NAMES:
                yield from _leaves(value)
    elif isinstance(block, list | tuple):
        for value in block:
            yield from _leaves(value)
    elif block is not None:
        yield 0, type(block), id(block)


_NAMES: Final = frozenset(
    {"type", "mime_type", "media_type", "source_type", "format", "filename", "detail"}
)
"""Keys of a block whose values only name what is under the others."""
