"""Fetches an image from a host on the policy's list, and from nowhere else.

Server-side request forgery is kept out by construction: the name is resolved once, every address
it resolves to must be public, and the connection is made to that address and no other, while TLS
still checks the certificate of the name. There are no redirects, no proxies and no cookies, and
one deadline holds for every single read and write.

The client sits on httpcore, the transport of httpx, because only there can the address and the
deadline be fixed for the connection itself.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import SplitResult, urlsplit

from safecode_guard.errors import FetchFailed, ForbiddenSource, ImageTooLarge
from safecode_guard.policy import ImagePolicy

if TYPE_CHECKING:
    import ssl

    import httpcore

Resolve = Callable[[str], Sequence[str]]

MAX_URL: Final = 4096
RETRIES: Final = 1
"""Further attempts to connect, each at the next address of the name."""

_HEADERS: Final = (
    ("Accept", "image/*"),
    ("Accept-Encoding", "identity"),  # a compressed body would hide its size from the limits
    ("Connection", "close"),
    ("User-Agent", "safecode-guard"),
)
# Printable ASCII without the backslash, which some parsers take for a slash.
_URL: Final = re.compile(r"[!-\[\]-~]+")
# Names with a letter at the start of their last label: no IP address in any notation.
_HOST: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,62})\.)*[a-z][a-z0-9-]{0,62}")

# Special ranges that some versions of `ipaddress` take for public, or that are public in form
# only: 168.63.129.16 is a cloud's host agent.
_SPECIAL: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "64:ff9b::/96", "64:ff9b:1::/48",
        "2001::/23", "2002::/16", "3fff::/20", "5f00::/16",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What to ask of which host; rebuilt from the parsed URL, so that nothing parses it again."""

    host: str
    path: str


def resolve(host: str) -> list[str]:
    """Return the addresses of a host from the system's resolver."""
    found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def fetch_image(url: str, policy: ImagePolicy, *, resolve: Resolve = resolve) -> bytes:
    """Fetch the bytes of an image from an allowed https URL.

    Args:
        url: The URL as it stands in the message.
        policy: ``allow_urls``, ``url_hosts``, ``url_timeout_s`` and ``max_bytes`` hold.
        resolve: Returns the addresses of a host name; called once.

    Raises:
        ForbiddenSource: If the URL, its host or one of the host's addresses is not allowed.
        FetchFailed: If there is no answer in time, or none with status 200; if the name cannot be
            resolved in time; if the extra ``remote`` is not installed.
        ImageTooLarge: If the answer is over ``policy.max_bytes``.
    """
    deadline = time.monotonic() + policy.url_timeout_s
    target = check_url(url, policy)
    addresses = check_addresses(_resolve(target.host, resolve, deadline))
    return download(target, addresses, deadline=deadline, max_bytes=policy.max_bytes)


def check_url(url: str, policy: ImagePolicy) -> Target:
    """Return the host and path of a URL that the policy allows.

    Raises:
        ForbiddenSource: If it is not https on port 443, carries credentials, is not plain ASCII,
            or its host is an IP address or not on the policy's list.
    """
    if not policy.allow_urls:
        raise _forbidden("URLs are not fetched.", "Set images.allow_urls and images.url_hosts.")
    if len(url) > MAX_URL or not _URL.fullmatch(url):
        raise _forbidden("The URL is too long or holds characters that must be escaped.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _forbidden("The URL cannot be parsed.") from error
    _check_parts(parts, port)
    host = (parts.hostname or "").lower()
    if not _HOST.fullmatch(host):
        raise _forbidden("The URL's host is no plain name; IP addresses are not fetched from.")
    if host not in {name.lower() for name in policy.url_hosts}:
        raise _forbidden(
            f"The host {host[:80]!r} is not on the policy's list.", "See images.url_hosts."
        )
    query = f"?{parts.query}" if parts.query else ""
    return Target(host, (parts.path or "/") + query)


def _check_parts(parts: SplitResult, port: int | None) -> None:
    if parts.scheme.lower() != "https":
        raise _forbidden("Only https URLs are fetched.")
    if "@" in parts.netloc:
        raise _forbidden("The URL carries credentials.")
    if port not in (None, 443):
        raise _forbidden("Only port 443 is fetched from.")


def check_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses if every one of them is public.

    Raises:
        ForbiddenSource: If one is private, loopback, link-local, shared, multicast, reserved, or
            carries an IPv4 address inside an IPv6 one.
        FetchFailed: If there is none.
    """
    if not addresses:
        raise FetchFailed("The host has no address.")
    for address in addresses:
        if not _is_public(address):
            raise _forbidden("The host resolves to an address that is not public.")
    return tuple(addresses)


def _is_public(address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and (
        ip.ipv4_mapped or ip.is_site_local or ip.scope_id
    ):
        return False
    if any(ip in network for network in _SPECIAL):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def download(
    target: Target,
    addresses: Sequence[str],
    *,
    deadline: float,
    max_bytes: int,
    port: int = 443,
    ssl_context: ssl.SSLContext | None = None,
) -> bytes:
    """Return the body of one GET over TLS, from one of these addresses and no other.

    The addresses are taken as they are: check them first.

    Raises:
        FetchFailed: If there is no answer with status 200 before the deadline.
        ImageTooLarge: If the body is over ``max_bytes``.
    """
    try:
        import httpcore
    except ImportError as error:
        raise FetchFailed(
            "Fetching images needs httpx.", hint="Install safecode-guard[remote]."
        ) from error
    url = httpcore.URL(scheme="https", host=target.host, port=port, target=target.path)
    backend = PinnedBackend(addresses, deadline=deadline)
    pool = httpcore.ConnectionPool(
        ssl_context=ssl_context,
        http1=True,
        http2=False,
        retries=RETRIES,
        network_backend=cast("httpcore.NetworkBackend", backend),
    )
    try:
        timeout = dict.fromkeys(("connect", "read", "write", "pool"), _left(deadline))
        with (
            pool,
            pool.stream("GET", url, headers=_HEADERS, extensions={"timeout": timeout}) as response,
        ):
            _check_response(response, max_bytes)
            return _read_body(response.iter_stream(), max_bytes)
    except (httpcore.TimeoutException, TimeoutError) as error:
        raise FetchFailed(
            "The host did not answer in time.", hint="See images.url_timeout_s."
        ) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise FetchFailed(f"The host could not be reached ({type(error).__name__}).") from error


def _check_response(response: httpcore.Response, max_bytes: int) -> None:
    headers = {key.lower(): value for key, value in response.headers}
    if 300 <= response.status < 400:
        raise FetchFailed("The host redirects, which is not followed.", hint="Use the final URL.")
    if response.status != 200:
        raise FetchFailed(f"The host answered with status {response.status}.")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise FetchFailed("The host sent a compressed body, which was not asked for.")
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)


def _read_body(chunks: Iterable[bytes], max_bytes: int) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


class PinnedBackend:
    """A network backend for httpcore that connects to given addresses, whatever the name.

    Each attempt takes the next address. No operation outlives the deadline, a time of
    ``time.monotonic``: a host that sends one byte at a time cannot hold a turn.
    """

    def __init__(self, addresses: Sequence[str], *, deadline: float) -> None:
        import httpcore

        self._inner = httpcore.SyncBackend()
        self._addresses = cycle(addresses)
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> PinnedStream:
        """Connect to the next address; the host's name is not looked at."""
        address = next(self._addresses)
        left = _left(self._deadline)
        stream = self._inner.connect_tcp(address, port, left, local_address, socket_options)
        return PinnedStream(stream, deadline=self._deadline)

    def sleep(self, seconds: float) -> None:
        """Wait between two attempts, at most until the deadline."""
        self._inner.sleep(min(seconds, _left(self._deadline)))


class PinnedStream:
    """A network stream whose every operation ends at the deadline at the latest."""

    def __init__(self, inner: httpcore.NetworkStream, *, deadline: float) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what has arrived, at most ``max_bytes``."""
        return self._inner.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of the buffer."""
        self._inner.write(buffer, _left(self._deadline))

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> PinnedStream:
        """Return the stream over TLS, the certificate checked against the host's name."""
        secured = self._inner.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return PinnedStream(secured, deadline=self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Return what the underlying stream knows of itself."""
        return self._inner.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for fetching an image is over")
    return left


def _resolve(host: str, resolve: Resolve, deadline: float) -> Sequence[str]:
    """Return the addresses of a host; the system's resolver knows no deadline of its own."""
    answers: SimpleQueue[Sequence[str] | Exception] = SimpleQueue()
    Thread(target=_answer, args=(host, resolve, answers), daemon=True).start()
    try:
        answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except Empty:
        raise FetchFailed(
            "The host's name was not resolved in time.", hint="See images.url_timeout_s."
        ) from None
    if isinstance(answer, UnicodeError):
        raise _forbidden("The URL's host is no name that can be resolved.") from answer
    if isinstance(answer, OSError):
        raise FetchFailed("The host's name cannot be resolved.") from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer(host: str, resolve: Resolve, answers: SimpleQueue[Sequence[str] | Exception]) -> None:
    try:
        answers.put(resolve(host))
    except Exception as error:  # handed over to the thread that asked
        answers.put(error)


def _forbidden(reason: str, hint: str = "Send the image's bytes as base64.") -> ForbiddenSource:
    return ForbiddenSource(reason, hint=hint)


def _too_large(max_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"The host sends more than the {max_bytes} bytes that are allowed.",
        hint="Scale the image down, or raise images.max_bytes in the policy.",
    )
