"""Images in the text of tools are found however they were written, and take their text's place."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.embedded import split
from safecode_guard.turns.found import Link, Media, Text
from safecode_guard.turns.images import load


def encode(format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.effect_noise((24, 16), 90).convert("RGB").save(file, format)
    return file.getvalue()


DATA = {format: encode(format) for format in ("PNG", "JPEG", "GIF", "WEBP", "BMP")}


def url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def in_pieces(text: str, length: int, between: str) -> str:
    return between.join(text[i : i + length] for i in range(0, len(text), length))


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


FORMS: dict[str, Callable[[bytes], str]] = {
    "url": url,
    "url in words": lambda d: f"Taken: {url(d)} at noon.",
    "url in markdown": lambda d: f"![shot]({url(d)})",
    "url in html": lambda d: f'<img src="{url(d)}" width=3>',
    "url in json": lambda d: json.dumps({"screenshot": url(d), "at": 3}),
    "url in json with escaped slashes": lambda d: json.dumps({"s": url(d)}).replace("/", r"\/"),
    "url with its plus signs escaped": lambda d: json.dumps({"s": url(d)}).replace("+", r"\u002b"),
    "url with percent signs": lambda d: url(d).replace("+", "%2B").replace("=", "%3D"),
    "url in a query": lambda d: "shot=" + url(d),
    "base64 in a query": lambda d: "shot=" + text_of(d),
    "url in capitals": lambda d: url(d).replace("data:image/png;base64", "DATA:IMAGE/PNG;BASE64"),
    "blocks of langchain": lambda d: json.dumps(
        [{"type": "image", "base64": text_of(d), "mime_type": "image/png"}]
    ),
    "media of genai": lambda d: json.dumps(
        {"type": "media", "mime_type": "image/png", "data": text_of(d)}
    ),
    "bedrock": lambda d: str({"image": {"format": "png", "source": {"bytes": d}}}),
    "bytes as python writes them": str,
    "bytes in a list": lambda d: str(["a'b", d, "it's"]),
    "bare base64": text_of,
    "base64 in json without a mime": lambda d: json.dumps({"screenshot": text_of(d)}),
    "base64 with line breaks": lambda d: base64.encodebytes(d).decode(),
    "base64 with line breaks in json": lambda d: json.dumps(base64.encodebytes(d).decode()),
    "base64 behind a letter": lambda d: "image=x" + text_of(d),
    "base64 behind a slash": lambda d: "png/" + text_of(d),
    "base64 behind a dash": lambda d: "img-" + text_of(d),
    "url in pieces": lambda d: "data:image/png;base64," + in_pieces(text_of(d), 76, " ") + " .",
    "url in lines": lambda d: "data:image/png;base64," + in_pieces(text_of(d), 40, "\n"),
    "base64 in pieces": lambda d: in_pieces(text_of(d), 16, " "),
    "bytes in json": lambda d: json.dumps({"x": str(d)}),
    "base64 in escapes": lambda d: '{"x": "' + escaped(text_of(d)) + '"}',
    "url in escapes": lambda d: '{"x": "' + escaped(url(d)) + '"}',
    "url-safe base64": lambda d: json.dumps(base64.urlsafe_b64encode(d).decode()),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("format", DATA)
def test_each_form_gives_the_very_bytes(form: str, format: str) -> None:
    data = DATA[format]
    media = [piece for piece in split(FORMS[form](data)) if isinstance(piece, Media)]
    assert len(media) == 1
    expected = load(Media(data), ImagePolicy())
    assert [i.sha256 for i in load(media[0], ImagePolicy())] == [i.sha256 for i in expected]


def test_the_image_takes_the_place_of_its_text() -> None:
    one, two = DATA["PNG"], DATA["JPEG"]
    pieces = split(f"before {url(one)} between {url(two)}")
    assert pieces[0] == Text("before ", from_tool=True)
    assert pieces[2] == Text(" between ", from_tool=True)
    assert [type(piece) for piece in pieces] == [Text, Media, Text, Media]


NO_IMAGES = {
    "words": "The stove is off.",
    "a mention": 'Write "data:image/png;base64," and then the letters.',
    "a template": 'f"data:image/png;base64,{encoded}"',
    "too short": "data:image/png;base64,AAAA",
    "svg is text": f"data:image/svg+xml;base64,{text_of(b'<svg>' + b' ' * 90)}",
    "another kind of data": f"data:application/pdf;base64,{text_of(b'%PDF' * 30)}",
    "a token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc-_def",
    "a hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "a path": "/9j/is/a/path/like/any/other/and/rather/long/at/that",
    "bytes that are no image": str(b"%PDF-1.7 \x89 and so on, for a while"),
    "json": json.dumps({"url": "https://e.org/a.png", "type": "image", "b": True}),
    "base64 of text": text_of(b"Nothing to see here, and quite a lot of it, too."),
    "hashes": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 " * 9,
    "words of one length": "stop that pan pan over here that pot lid not mine " * 30,
    "a jpeg's three bytes in a word": "QUJDREVG/9j/" + "QUJD" * 40,
    "escapes of words": escaped("Nothing to see here, and quite a lot of it, too."),
    "a long token": "eyJhbGciOiJSUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0" * 20 + ".abc-_def",
    "an address": "https://e.org/a/9j/4AAQ" + "x" * 90,
    "the start of a png in words": "iVBORw0KGgo is how the base64 of every PNG file begins",
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_stays_text(name: str) -> None:
    assert split(NO_IMAGES[name]) == (Text(NO_IMAGES[name], from_tool=True),)


def test_what_claims_to_be_an_image_is_one_whatever_its_letters() -> None:
    (media,) = split("data:image/png;base64," + "A" * 400)
    assert isinstance(media, Media)
    assert isinstance(media.source, Link)


@given(st.lists(st.text(max_size=30) | st.sampled_from(list(DATA.values())), max_size=5))
def test_nothing_is_lost_and_nothing_is_found_twice(items: list[str | bytes]) -> None:
    text = " ".join(url(i) if isinstance(i, bytes) else i.replace("data:", "") for i in items)
    pieces = split(text)
    said = [p.text if isinstance(p, Text) else p.source.url for p in pieces]  # type: ignore[union-attr]
    assert "".join(said) == text
    found = [piece for piece in pieces if isinstance(piece, Media)]
    assert len(found) == sum(isinstance(item, bytes) for item in items)


def test_long_text_is_split_in_linear_time() -> None:
    letters = "".join(random.Random(0).choices("Qk/9jAUSI+data:image/,;'\\b\n ", k=400_000))
    assert "".join(p.text for p in split(letters) if isinstance(p, Text))
