"""What a tool did: it returned something, or raised; and what anybody would be shown of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from langchain_core.tools import BaseTool, ToolException
from langgraph.errors import GraphBubbleUp
from pydantic import ValidationError
from pydantic.v1 import ValidationError as ValidationErrorV1

from safecode_guard.turns import artifacts
from safecode_guard_langchain import results
from safecode_guard_langchain.outputs import holds_media

INVALID: Final = (ValidationError, ValidationErrorV1)
_CHAIN: Final = 8
"""Errors behind an error that are looked at."""


@dataclass(frozen=True)
class Outcome:
    """What a tool did: it returned something, or raised."""

    returned: Any = None
    error: Exception | None = None

    @classmethod
    def of(cls, act: Callable[[], Any]) -> Outcome:
        """Run a tool; what LangGraph itself raises goes on."""
        try:
            return cls(act())
        except GraphBubbleUp:
            raise
        except Exception as error:  # whatever it is, somebody further out may show it
            return cls(error=error)

    @classmethod
    async def aof(cls, act: Callable[[], Any]) -> Outcome:
        """Run a tool asynchronously."""
        try:
            return cls(await act())
        except GraphBubbleUp:
            raise
        except Exception as error:  # whatever it is, somebody further out may show it
            return cls(error=error)

    def raw(self) -> Any:
        """Return or raise it as the tool did."""
        if self.error is not None:
            raise self.error
        return self.returned

    def is_handled(self, inner: BaseTool) -> bool:
        """Return whether the tool makes a result of its error."""
        return bool(self._handler(inner))

    def as_formed(self, inner: BaseTool, id: str | None) -> Any:
        """Return what a tool returned that makes its messages itself; None: nothing to judge."""
        if self.error is not None:
            return self._as_error(inner, id)
        return results.as_message(self.returned, name=inner.name, id=id)

    def as_shown(self, inner: BaseTool, id: str | None) -> Any:
        """Return what becomes of it before anyone is shown it; None: nothing to judge."""
        make = partial(results.as_message, name=inner.name, id=id)
        if self.error is not None:
            handle = self._handler(inner)
            if not handle:
                return self._as_error(inner, id)
            return make(_handled(self.error, handle), status="error")
        if inner.response_format != "content_and_artifact":
            return make(self.returned)
        if isinstance(self.returned, tuple) and len(self.returned) == 2:
            return make(*self.returned)
        return make(self.returned)  # LangChain refuses it, and may show it in doing so

    def safe(self, text: str) -> Exception:
        """Return an error of the same kind that says only what may be shown."""
        try:
            made = type(self.error)(text)  # type: ignore[misc]
        except Exception:  # it is made of something else
            return ToolException(text)
        return made if isinstance(made, Exception) else ToolException(text)

    def _handler(self, inner: BaseTool) -> Any:
        if isinstance(self.error, INVALID):
            return inner.handle_validation_error
        return inner.handle_tool_error if isinstance(self.error, ToolException) else None

    def _as_error(self, inner: BaseTool, id: str | None) -> Any:
        """Return an error as a result, if there is a picture in it: who handles it may show it."""
        text, args = _said_by(self.error)
        if not holds_media(text) and not artifacts.images_in(args):
            return None
        return results.as_message(text, args, name=inner.name, id=id, status="error")


def _said_by(error: BaseException | None) -> tuple[str, list[Any]]:
    """Return the words of an error and of those behind it, and what they were made with."""
    said: list[str] = []
    args: list[Any] = []
    for _ in range(_CHAIN):
        if error is None:
            break
        said += [str(error), repr(error), *getattr(error, "__notes__", ())]
        args += [*error.args, getattr(error, "__dict__", {})]
        error = error.__cause__ or error.__context__
    return "\n".join(dict.fromkeys(said)), args


def _handled(error: Exception, handle: Any) -> Any:
    """Return what a tool makes of its own error, as LangChain does it."""
    if isinstance(handle, bool):
        if isinstance(error, INVALID):
            return "Tool input validation error"
        return error.args[0] if error.args else "Tool execution error"
    return handle if isinstance(handle, str) else handle(error)
