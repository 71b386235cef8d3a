"""The way to a judge's server and back: bounded in time, size and number, and never redirected.

What it raises has a ``reason`` that may be recorded. The body of an error stays unread: it may
quote the conversation, or the key.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NoReturn

from safecode_guard.errors import JudgeError, JudgeTimeout, JudgeUnavailable, PolicyError
from safecode_guard.judges.deadlines import remaining
from safecode_guard.policy import HttpJudgeConfig

if TYPE_CHECKING:
    import httpx
    from purgatory import AsyncCircuitBreakerFactory
    from purgatory.domain.model import Context
    from tenacity import AsyncRetrying, RetryCallState

_PACKAGES: Final = ("httpx", "tenacity", "purgatory")
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
_MARGIN_S: Final = 0.02
"""Given up so much before the deadline, so that the cause is told by who knows it."""
_BACKOFF_S: Final = (0.1, 2.0)
_LONGEST_WAIT_S: Final = 60.0
_LEFT_ALONE: Final = "its endpoint keeps failing and is left alone for a while"
_REASONS: Final = {
    401: ("its endpoint wants another API key", "Check judge.api_key."),
    403: ("its endpoint does not let this API key in", "Check judge.api_key."),
    404: ("its endpoint knows no such URL or model", "Check judge.url and judge.model."),
    413: ("the request is too large for its endpoint", "Lower scene_images."),
    429: ("its endpoint is asked too often", "Lower judge.concurrency."),
}


class Endpoint:
    """One server; to be used on one event loop."""

    def __init__(
        self, config: HttpJudgeConfig, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._config = config
        self._client = _client(config, transport)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._breakers = _breakers(config)
        self._state: Context | None = None

    async def complete(
        self, body: Callable[[], Mapping[str, Any]], *, deadline: float | None
    ) -> bytes:
        """Return the reply to a chat completion's request, as it came.

        Args:
            body: Makes the request, in a thread: pictures take a while to encode. It is not
                called where the server is left alone.
            deadline: When to give up, in seconds of ``time.monotonic``.

        Raises:
            JudgeTimeout: If there is no whole reply before the deadline.
            JudgeUnavailable: If the server cannot be reached, refuses, or has failed so often
                that it is left alone.
            JudgeError: If request or reply are over their limits.
        """
        reply: bytes = await self._retrying(deadline)(self._attempt, body, deadline)
        return reply

    def require_working(self) -> None:
        """Refuse at once, in any thread, where the server is left alone.

        Raises:
            JudgeUnavailable: If it is.
        """
        state = self._state
        if state is None or state.state != "opened":
            return
        if time.time() <= (state.opened_at or 0.0) + state.ttl:
            raise self._left_alone()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _retrying(self, deadline: float | None) -> AsyncRetrying:
        from tenacity import (
            AsyncRetrying,
            retry_if_exception,
            stop_after_attempt,
            stop_before_delay,
        )

        stop = stop_after_attempt(self._config.retries + 1)
        left = remaining(deadline)
        return AsyncRetrying(
            stop=stop if left is None else stop | stop_before_delay(left),
            wait=_pause,
            retry=retry_if_exception(_passes),
            reraise=True,
        )

    async def _attempt(
        self, body: Callable[[], Mapping[str, Any]], deadline: float | None
    ) -> bytes:
        """Ask once, unless the server is to be left alone."""
        from purgatory.domain.model import OpenedState

        try:
            breaker = await self._breakers.get_breaker("endpoint")
            self._state = breaker.context
            self._state.handle_new_request()  # before anything is encoded in vain
            data = await asyncio.to_thread(self._encoded, body)
            async with breaker:
                left = remaining(deadline)
                try:
                    async with asyncio.timeout(left and left - _MARGIN_S), self._slots:
                        return await self._exchanged(data)
                except TimeoutError as error:
                    raise _late() from error
        except OpenedState as error:
            error.__traceback__ = None  # one object, raised again and again: it would only grow
            raise self._left_alone() from None

    def _left_alone(self) -> JudgeUnavailable:
        return JudgeUnavailable(
            f"The judge's endpoint failed {self._config.breaker_failures} times in a row.",
            hint=f"It is asked again after {self._config.breaker_s:g} s.",
            reason=_LEFT_ALONE,
        )

    def _encoded(self, body: Callable[[], Mapping[str, Any]]) -> bytes:
        data = json.dumps(body(), ensure_ascii=False, separators=(",", ":")).encode()
        if len(data) > self._config.max_request_bytes:
            raise JudgeError(
                f"The judge's request has {len(data)} bytes.",
                hint="Raise judge.max_request_bytes, or lower scene_images.",
                reason="the request is over judge.max_request_bytes",
            )
        return data

    async def _exchanged(self, data: bytes) -> bytes:
        import httpx

        try:
            async with self._client.stream("POST", "chat/completions", content=data) as response:
                if response.status_code != 200:
                    _refused(response)
                return await self._body(response)
        except httpx.TimeoutException as error:
            raise _late() from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise JudgeUnavailable(
                "The judge's endpoint could not be reached.",
                hint="Check judge.url, and that the server runs.",
                reason="its endpoint could not be reached",
            ) from error

    async def _body(self, response: httpx.Response) -> bytes:
        limit = self._config.max_response_bytes
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise JudgeError(
                "The judge's endpoint sent a compressed reply, which was not asked for.",
                reason="its endpoint sent a compressed reply",
            )
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > limit:
                raise JudgeError(
                    f"The judge's reply has more than {limit} bytes.",
                    hint="Raise judge.max_response_bytes, if that was meant.",
                    reason="the reply is over judge.max_response_bytes",
                )
        return bytes(body)


def require_parts(config: HttpJudgeConfig) -> None:
    """Refuse to begin without what is needed; nothing is imported and nothing connected.

    Raises:
        PolicyError: If the extra ``remote`` is not installed, or ``ca_file`` is not there.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise PolicyError(
            f"A judge behind a server needs {', '.join(missing)}.",
            hint="Install safecode-guard[remote].",
        )
    if config.ca_file is not None and not config.ca_file.is_file():
        raise PolicyError(
            f"There is no file {str(config.ca_file)!r} of certificates.",
            hint="Check judge.ca_file.",
        )


def _client(
    config: HttpJudgeConfig, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    import httpx

    read = config.read_timeout_s
    return httpx.AsyncClient(
        base_url=config.url,
        headers=_headers(config),
        timeout=httpx.Timeout(read, connect=config.connect_timeout_s, pool=None),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=config.concurrency),
        verify=_trusted(config),
        follow_redirects=False,
        trust_env=False,  # no proxy, and no key from a .netrc
        transport=transport,
    )


def _breakers(config: HttpJudgeConfig) -> AsyncCircuitBreakerFactory:
    """Return the maker of circuit breakers; a cancelled caller says nothing of the server."""
    from purgatory import AsyncCircuitBreakerFactory

    return AsyncCircuitBreakerFactory(
        config.breaker_failures,
        config.breaker_s,
        exclude=[(JudgeError, _works), asyncio.CancelledError],
    )


def _headers(config: HttpJudgeConfig) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # a compressed body would hide its size from the limit
        "User-Agent": "safecode-guard",
    }
    if config.api_key is not None:
        headers["Authorization"] = f"Bearer {config.api_key.get_secret_value()}"
    return headers


def _trusted(config: HttpJudgeConfig) -> Any:
    import ssl

    if config.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=config.ca_file)
    except OSError as error:
        raise JudgeError(
            f"The certificates in {str(config.ca_file)!r} cannot be read.",
            hint="Check judge.ca_file.",
            reason="judge.ca_file cannot be read",
        ) from error


def _refused(response: httpx.Response) -> NoReturn:
    status = response.status_code
    if response.is_redirect:
        reason, hint = "its endpoint redirects, which is not followed", "Use the final URL."
    else:
        reason, hint = _REASONS.get(status, ("its endpoint refused", "Look into the server's log."))
    raise JudgeUnavailable(
        f"The judge's endpoint answered with status {status}.",
        hint=hint,
        reason=f"{reason} (status {status})",
        status=status,
        retry_after=_retry_after(response.headers.get("retry-after")),
    )


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which gives them or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):  # no date, or one without a zone
            return None
    return min(max(0.0, seconds), _LONGEST_WAIT_S)


def _late() -> JudgeTimeout:
    return JudgeTimeout(
        "The judge's endpoint did not answer in time.",
        hint="Raise judge.timeout_s or judge.read_timeout_s, or use a lighter judge.",
        reason="the judge did not answer before its deadline: its endpoint is too slow",
    )


def _passes(error: BaseException) -> bool:
    """Return whether a failure may have passed at the next attempt."""
    if not isinstance(error, JudgeUnavailable) or error.reason == _LEFT_ALONE:
        return False
    return error.status is None or error.status in _PASSING


def _works(error: BaseException) -> bool:
    """Return whether a failure leaves no doubt that the server itself works."""
    if isinstance(error, JudgeUnavailable):
        return error.status is not None and error.status < 500
    return not isinstance(error, JudgeTimeout)


def _pause(state: RetryCallState) -> float:
    """Return how long to wait: with jitter, and no less than the server asks for."""
    from tenacity import wait_random_exponential

    first, most = _BACKOFF_S
    error = state.outcome.exception() if state.outcome else None
    asked = getattr(error, "retry_after", None) or 0.0
    return max(asked, wait_random_exponential(multiplier=first, max=most)(state))
