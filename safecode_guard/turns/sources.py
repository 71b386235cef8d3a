"""From where an image's bytes are to the bytes themselves. No path is ever opened."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

from safecode_guard.errors import FetchFailed, ForbiddenSource, ImageTooLarge, UnreadableImage
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.fetch import fetch_image
from safecode_guard.turns.found import Encoded, Link

Fetch = Callable[[str, ImagePolicy], bytes]

_INLINE_HINT: Final = "Send the image's bytes as base64."


def read_bytes(
    source: bytes | Encoded | Link,
    policy: ImagePolicy,
    *,
    fetch: Fetch = fetch_image,
    deadline: float | None = None,
) -> bytes:
    """Return the encoded bytes of an image, at most ``policy.max_bytes`` of them.

    Raises:
        UnreadableImage: If base64 is malformed.
        ImageTooLarge: If there are too many, or the text is too long to hold fewer.
        ForbiddenSource: If the source is a path, or a URL that the policy does not allow.
        FetchFailed: If an allowed URL does not answer within its limits or the deadline.
    """
    if isinstance(source, Encoded):
        data = _decode_base64(source.text, policy)
    elif isinstance(source, Link):
        data = _follow(source.url.strip(), policy, fetch, deadline)
    else:
        data = source
    check_bytes(len(data), policy)
    return data


def is_inline(source: bytes | Encoded | Link) -> bool:
    """Return whether a source is the bytes themselves, which a URL to be fetched is not."""
    return not isinstance(source, Link) or source.url.lstrip()[:5].lower() == "data:"


def check_bytes(count: int, policy: ImagePolicy) -> None:
    """Check the encoded size of an image.

    Raises:
        ImageTooLarge: If it is over ``policy.max_bytes``.
    """
    if count > policy.max_bytes:
        raise ImageTooLarge(
            f"The image has {count} bytes; {policy.max_bytes} are allowed.", hint=_SIZE_HINT
        )


def _follow(url: str, policy: ImagePolicy, fetch: Fetch, deadline: float | None) -> bytes:
    if url[:5].lower() == "data:":
        return _read_data_url(url, policy)
    scheme = url.partition("://")[0].lower() if "://" in url[:12] else ""
    if scheme not in ("http", "https"):
        raise ForbiddenSource(
            "Paths and URLs other than data: and https: are never opened.", hint=_INLINE_HINT
        )
    if not policy.allow_urls:
        raise ForbiddenSource(
            "URLs are not fetched.",
            hint=f"{_INLINE_HINT} Or set images.allow_urls and images.url_hosts.",
        )
    try:
        return fetch(url, _hurried(policy, deadline))
    except OSError as error:
        raise FetchFailed(f"The host could not be reached ({type(error).__name__}).") from error


def _hurried(policy: ImagePolicy, deadline: float | None) -> ImagePolicy:
    """Return the policy with no more time for a URL than is left before the deadline."""
    left = policy.url_timeout_s if deadline is None else deadline - time.monotonic()
    if left >= policy.url_timeout_s:
        return policy
    return policy.model_copy(update={"url_timeout_s": left})


def _read_data_url(url: str, policy: ImagePolicy) -> bytes:
    """Read ``data:[mime][;parameters][;base64],payload`` (RFC 2397)."""
    head, comma, payload = url.partition(",")
    if not comma:
        raise UnreadableImage("The data: URL has no payload.", hint=_INLINE_HINT)
    _check_text(payload, policy)
    raw = unquote_to_bytes(payload) if "%" in payload else payload.encode(errors="replace")
    if head.rpartition(";")[2].strip().lower() == "base64":
        return _decode_base64(raw.decode(errors="replace"), policy)
    return raw


def _decode_base64(text: str, policy: ImagePolicy) -> bytes:
    """Decode base64 strictly, in either alphabet but not in both; line breaks are fine.

    Readers that know one alphabet skip over the other's letters, so that a mixture is one image
    to them and another one here.
    """
    _check_text(text, policy)
    text = "".join(text.split())
    url_safe, standard = "-" in text or "_" in text, "+" in text or "/" in text
    try:
        if url_safe and standard:
            raise ValueError("both alphabets")
        if url_safe:
            text = text.replace("-", "+").replace("_", "/")
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableImage(
            "The image's base64 is malformed.", hint="Encode the file anew, with its padding."
        ) from error


def _check_text(text: str, policy: ImagePolicy) -> None:
    # Percent-encoding takes three characters for a byte: more than this cannot fit.
    if len(text) > 4 * policy.max_bytes + 1024:
        raise ImageTooLarge(
            f"The encoded image has {len(text)} characters; {policy.max_bytes} bytes are allowed.",
            hint=_SIZE_HINT,
        )


_SIZE_HINT: Final = "Scale the image down, or raise images.max_bytes in the policy."
