"""What went wrong, as an HTTP status and a sentence: what a caller can mend is told, nothing else.

No content of a conversation stands in it, and nothing of the server's own insides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from safecode_guard.errors import (
    AuditError,
    ConstraintError,
    GuardError,
    ImageError,
    JudgeError,
    ModelError,
    Overloaded,
    PolicyError,
    TurnTimeout,
    UnknownArgument,
    UnreadableCall,
    UnsupportedGeneration,
)
from safecode_guard.server.doors import Refused

_CALLERS: Final = (
    ImageError,
    ConstraintError,
    UnsupportedGeneration,
    PolicyError,
    UnknownArgument,
    UnreadableCall,
)
"""Errors that the caller can mend, from the most special to the most general."""

_CLIENTS: Final = ("openai", "httpx", "httpcore")
"""Packages whose errors are those of a server behind this one."""


def refused(error: BaseException) -> Refused:
    """Return the answer to a request that failed."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ClientDisconnect):
        return Refused(499, "client_closed_request", "The client went away.")
    if isinstance(error, ValidationError):
        return Refused(400, "invalid_request", _wrong(error))
    if isinstance(error, Overloaded):
        return Refused(503, "overloaded", str(error), retry_after="1")
    if isinstance(error, TurnTimeout):
        return Refused(504, "timeout", str(error))
    if isinstance(error, AuditError | JudgeError):
        return Refused(503, "unavailable", "The check failed; nothing was answered.")
    if isinstance(error, _CALLERS):
        return Refused(400, _code(error), str(error))
    if isinstance(error, ModelError):
        return Refused(400, _code(error), error.message)
    if isinstance(error, GuardError | ValueError) and type(error) in (GuardError, ValueError):
        return Refused(400, "invalid_request", str(error))
    if any(kind.__module__.partition(".")[0] in _CLIENTS for kind in type(error).__mro__):
        return Refused(502, "upstream_failed", "The model's server failed; nothing was answered.")
    return Refused(500, "internal_error", "The server failed; nothing was answered.")


def _code(error: BaseException) -> str:
    """Return an error's name as the API writes codes: ``image_too_large``."""
    name = type(error).__name__
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]


def _wrong(error: ValidationError) -> str:
    details = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(_sentence(detail) for detail in details[:5]) + "."


def _sentence(detail: Mapping[str, Any]) -> str:
    where = ".".join(map(str, detail["loc"]))
    text = str(detail["msg"]).removeprefix("Value error, ")
    return f"{where}: {text}" if where else text
