"""Bytes from every kind of source: nothing is opened, little is fetched, no letter is guessed."""

from __future__ import annotations

import base64
import io
import time

import pytest
from PIL import Image

from safecode_guard.errors import FetchFailed, ForbiddenSource, ImageTooLarge, UnreadableImage
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns import sources
from safecode_guard.turns.found import Encoded, Link, Media
from safecode_guard.turns.images import load
from safecode_guard.turns.sources import is_inline, read_bytes

POLICY = ImagePolicy()
OPEN = ImagePolicy(allow_urls=True, url_hosts=("example.org",))
URL = Link("https://example.org/a.png")


def png() -> bytes:
    """Return a file whose base64 has letters that differ between the two alphabets."""
    file = io.BytesIO()
    Image.effect_noise((24, 16), 90).save(file, "PNG")
    data = file.getvalue()
    assert b"+" in base64.b64encode(data)
    assert b"/" in base64.b64encode(data)
    return data


def test_huge_base64_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.base64, "b64decode", None)
    for source in (Encoded("A" * 6_000), Link("data:image/png;base64," + "A" * 6_000)):
        with pytest.raises(ImageTooLarge):
            load(Media(source), ImagePolicy(max_bytes=1_000))


def test_base64_is_held_to_the_byte_limit() -> None:
    data = png()
    text = base64.b64encode(data).decode()
    assert load(Media(Encoded(text)), ImagePolicy(max_bytes=len(data)))
    with pytest.raises(ImageTooLarge):
        load(Media(Encoded(text)), ImagePolicy(max_bytes=len(data) - 1))


def test_letters_outside_base64_are_not_skipped_over() -> None:
    text = base64.b64encode(png()).decode()
    for broken in (f"{text[:40]}!{text[40:]}", f"{text[:40]}.{text[40:]}", f"{text}\0"):
        with pytest.raises(UnreadableImage, match="malformed"):
            load(Media(Encoded(broken)), POLICY)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "/etc/passwd", "etc/passwd", "C:\\a.png", "\\\\host\\share\\a.png",
        "//host/a.png", "ftp://h/a", "https://example.org/a.png", "http://example.org/a.png", "",
        "javascript:alert(1)", "HTTPS://EXAMPLE.ORG/",
    ],
)  # fmt: skip
def test_no_path_is_opened_and_no_url_fetched(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.open", None)
    monkeypatch.setattr("socket.socket.connect", None)
    monkeypatch.setattr("socket.getaddrinfo", None)
    with pytest.raises(ForbiddenSource) as caught:
        load(Media(Link(url)), POLICY, message_index=0, block_index=7)
    assert caught.value.block_index == 7
    assert "base64" in (caught.value.hint or "")


def test_one_alphabet_or_the_other_but_not_both() -> None:
    data = png()
    standard = base64.b64encode(data).decode()
    url_safe = base64.urlsafe_b64encode(data).decode()
    assert read_bytes(Encoded(standard), POLICY) == read_bytes(Encoded(url_safe), POLICY) == data
    mixed = standard.replace("+", "-")
    for source in (Encoded(mixed), Link(f"data:image/png;base64,{mixed}")):
        with pytest.raises(UnreadableImage, match="malformed"):
            read_bytes(source, POLICY)


def test_what_is_inline_needs_no_network() -> None:
    assert all(map(is_inline, (b"", Encoded(""), Link("data:,x"), Link("  DATA:,x"))))
    assert not any(map(is_inline, (URL, Link("/etc/passwd"))))


# -- URLs -----------------------------------------------------------------------------------------


def test_an_allowed_url_is_fetched_under_the_policy() -> None:
    asked: list[str] = []

    def fetch(url: str, given: ImagePolicy) -> bytes:
        asked.append(url)
        assert given is OPEN
        return b"png"

    assert read_bytes(URL, OPEN, fetch=fetch) == b"png"
    assert asked == [URL.url]


def test_what_was_fetched_is_held_to_the_byte_limit() -> None:
    with pytest.raises(ImageTooLarge):
        read_bytes(URL, OPEN.model_copy(update={"max_bytes": 2}), fetch=lambda url, policy: b"png")


@pytest.mark.parametrize(("left", "expected"), [(100.0, 10.0), (2.0, 2.0)])
def test_fetching_gets_no_longer_than_is_left(left: float, expected: float) -> None:
    given: list[float] = []

    def fetch(url: str, policy: ImagePolicy) -> bytes:
        given.append(policy.url_timeout_s)
        return b"png"

    read_bytes(URL, OPEN, fetch=fetch, deadline=time.monotonic() + left)
    assert given == [pytest.approx(expected, abs=0.1)]


def test_a_broken_connection_is_a_failed_fetch() -> None:
    def fetch(url: str, policy: ImagePolicy) -> bytes:
        raise ConnectionResetError

    with pytest.raises(FetchFailed, match="ConnectionResetError"):
        read_bytes(URL, OPEN, fetch=fetch)
