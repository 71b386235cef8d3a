"""Watches that nothing runs, and nothing is shown, past the guard.

A middleware further in may bring a tool of its own, or add a picture just before the model is
called. LangChain announces every start to callbacks, and a callback that raises stops it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
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
