"""Who comes in, with how much, and how many at a time."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

ANYONE = "anyone"
"""The name of callers where there are no keys."""
_DRAIN: Final = 1 << 20
"""Bytes of a request that is too large which are read all the same before it is refused."""
_DRAIN_S: Final = 2.0


class Refused(Exception):
    """A request that is answered with an error; none of the conversation is in it."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Keys:
    """The keys of callers; comparing takes as long whichever is given."""

    def __init__(self, keys: Mapping[str, SecretStr]) -> None:
        self._hashes = {name: _hash(key.get_secret_value()) for name, key in keys.items()}

    def name_of(self, headers: Mapping[str, str]) -> str:
        """Return whose key a request bears, as bearer token or ``x-api-key``.

        Raises:
            Refused: If it is nobody's.
        """
        if not self._hashes:
            return ANYONE
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        hashed = _hash(given)
        found = [name for name, own in self._hashes.items() if hmac.compare_digest(own, hashed)]
        if not found:
            raise Refused(
                401, "invalid_api_key", "Incorrect API key provided.", www_authenticate="Bearer"
            )
        return found[0]


class Places:
    """The requests under way, by key; used on the event loop alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    @property
    def under_way(self) -> int:
        """How many requests there are."""
        return self._taken.total()

    @contextmanager
    def one_of(self, name: str) -> Iterator[None]:
        """Hold a place.

        Raises:
            Refused: If the key has no more of them.
        """
        if self._taken[name] >= self._most:
            raise Refused(
                429,
                "rate_limit_exceeded",
                f"More than {self._most} requests of this key are under way.",
                retry_after="1",
            )
        self._taken[name] += 1
        try:
            yield
        finally:
            self._taken[name] -= 1


class BodyLimit:
    """Refuses what is too large: by what it says it is, and then by what it turns out to be."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, counting what is read of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                await _drained(receive, message)
                raise Refused(413, "request_too_large", self._told())
            return message

        if _length(scope) > self._most:
            await _drained(receive)
            await self._refuse(send)
            return
        await self._app(scope, counted, send)

    def _told(self) -> str:
        return f"A request may have {self._most} bytes, pictures included."

    async def _refuse(self, send: Send) -> None:
        body = json.dumps(error_body("request_too_large", self._told())).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _drained(receive: Receive, last: Message | None = None) -> None:
    """Read on and forget, within bounds: who is hung up on amid a request reads no answer."""
    read = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            while read < _DRAIN and (last is None or last.get("more_body", False)):
                last = await receive()
                read += len(last.get("body", b""))


def error_body(code: str, message: str, *, kind: str = "invalid_request_error") -> dict[str, Any]:
    """Return an error in the form of the API."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
