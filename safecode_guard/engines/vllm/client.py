"""The way to a vLLM server and back: bounded in time, size and number, and never redirected."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from safecode_guard.errors import ModelError, ModelUnavailable, PolicyError, TurnTimeout

if TYPE_CHECKING:
    import httpx

Body = Mapping[str, Any]

COMPLETIONS: Final = "v1/chat/completions"
RENDER: Final = "v1/chat/completions/render"
GENERATE: Final = "inference/v1/generate"

_MOST_BYTES: Final = 256 * 2**20
"""Of one reply; a rendered prompt holds its pictures as numbers."""
_QUOTED: Final = 500
_HINTS: Final = {
    400: "The error's `reply` says why; vLLM refuses prompts that are too long, and unknown forms.",
    401: "Check api_key.",
    403: "Check api_key.",
    404: "Check base_url and model.",
    413: "Send fewer or smaller pictures.",
    429: "Lower max_active.",
}


@dataclass(frozen=True)
class Address:
    """Where a server is, and how patient its client is."""

    base_url: str
    """Ends in ``/v1``, or is the server's root."""
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 120.0
    """Of one request, from its sending to its last byte."""
    connect_timeout_s: float = 5.0

    @property
    def root(self) -> str:
        """The server's root, with a slash at its end."""
        return self.base_url.rstrip("/").removesuffix("/v1") + "/"


def require_httpx() -> None:
    """Refuse to begin without the client's library.

    Raises:
        PolicyError: If it is not installed.
    """
    if find_spec("httpx") is None:
        raise PolicyError(
            "A model behind a server needs httpx.", hint="Install safecode-guard[remote]."
        )


class Client:
    """Requests to one server; to be used on one event loop, where all share its connections."""

    def __init__(
        self, address: Address, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.address = address
        self._http = _http(address, transport)

    async def post(
        self, path: str, body: Callable[[], Body], *, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Return the JSON that a request is answered with.

        Args:
            path: Below the server's root.
            body: Makes the request, in a thread: pictures take a while to encode.
            headers: More of them.

        Raises:
            ModelUnavailable: If the server cannot be reached, refuses, or is too slow.
            ModelError: If the reply is over the limit, or no JSON.
        """
        content = await asyncio.to_thread(_encoded, body)
        async with self._sent("POST", path, content, headers) as response:
            data = await _read(response)
        try:
            return await asyncio.to_thread(json.loads, data)
        except ValueError as error:
            raise ModelError("The server's reply is no JSON.", hint="Check base_url.") from error

    async def stream(
        self, path: str, body: Callable[[], Body], *, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Any]:
        """Yield the JSON of each event that a request is answered with; raises as `post` does."""
        content = await asyncio.to_thread(_encoded, body)
        async with self._sent("POST", path, content, headers) as response:
            async for line in response.aiter_lines():
                name, _, data = line.partition(":")
                if name != "data":
                    continue
                if data.strip() == "[DONE]":
                    return
                try:
                    yield json.loads(data)
                except ValueError as error:
                    raise ModelError("An event of the server is no JSON.") from error
        raise ModelUnavailable("The server broke an answer off.", hint="Look into its log.")

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    @asynccontextmanager
    async def _sent(
        self, method: str, path: str, content: bytes, headers: Mapping[str, str] | None
    ) -> AsyncGenerator[httpx.Response]:
        """Send a request, and give its reply until the time is up."""
        import httpx

        try:
            async with (
                asyncio.timeout(self.address.timeout_s) as limit,
                self._http.stream(method, path, content=content, headers=headers) as response,
            ):
                if response.status_code != 200:
                    raise await _refused(response)
                yield response
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise _slow() from error
        except httpx.TimeoutException as error:
            raise _slow() from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ModelUnavailable(
                "The model's server could not be reached, or broke off.",
                hint="Check base_url, and that the server runs.",
            ) from error


@asynccontextmanager
async def until(deadline: float | None) -> AsyncGenerator[None]:
    """Give up what is done here at a deadline.

    Raises:
        TurnTimeout: At the deadline, in seconds of ``time.monotonic``.
    """
    left = None if deadline is None else deadline - time.monotonic()
    try:
        async with asyncio.timeout(left) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TurnTimeout(
            "The turn's deadline passed while the model's server answered.",
            hint="Raise policy.deadline_s, or lower max_tokens.",
        ) from error


def _http(address: Address, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    import httpx

    headers = {"Content-Type": "application/json", "User-Agent": "safecode-guard"}
    if address.api_key is not None:
        headers["Authorization"] = f"Bearer {address.api_key}"
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    return httpx.AsyncClient(
        base_url=address.root,
        headers=headers,
        timeout=httpx.Timeout(
            address.timeout_s, connect=address.connect_timeout_s, pool=address.timeout_s
        ),
        follow_redirects=False,
        trust_env=False,  # no proxy, and no key from a .netrc
        transport=transport or httpx.AsyncHTTPTransport(retries=1, limits=limits, trust_env=False),
    )


def _encoded(body: Callable[[], Body]) -> bytes:
    return json.dumps(body(), separators=(",", ":"), allow_nan=False).encode()


async def _read(response: httpx.Response, most: int = _MOST_BYTES) -> bytes:
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > most:
            raise ModelError(f"The server's reply has more than {most} bytes.")
    return bytes(data)


async def _refused(response: httpx.Response) -> ModelUnavailable:
    status, said = response.status_code, b""
    async for chunk in response.aiter_bytes():
        said += chunk
        if len(said) > _QUOTED:
            break
    return ModelUnavailable(
        f"The model's server answered with status {status}.",
        hint=_HINTS.get(status, "Look into the server's log."),
        status=status,
        reply=said[:_QUOTED].decode(errors="replace"),
    )


def _slow() -> ModelUnavailable:
    return ModelUnavailable(
        "The model's server did not answer in time.",
        hint="Raise timeout_s, or ask for fewer tokens.",
    )
