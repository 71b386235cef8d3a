"""Finds images in the text that a tool returned.

Frameworks write what a tool returns as text where they do not know its form: JSON with data: URLs
or base64 in it, Python's way of writing bytes. OpenAI's computer use even sends each screenshot as
a message whose whole text is a data: URL. The image takes the place of its text.

Tools return long texts, and each is read at every step of an agent: where an image may begin is
found by plain search, and only there a pattern is tried.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from safecode_guard.turns.found import Encoded, Found, Link, Media, Text
from safecode_guard.turns.signatures import MIN_BASE64, is_encoded_image, is_image

# The first letters of base64, and how many stand before them.
_FIRST_LETTERS: Final = {
    "iVBORw0KGgo": 0, "/9j/": 0, r"\/9j\/": 0, "_9j_": 0, "R0lGOD": 0, "UklGR": 0, "Qk": 0,
    "SUkq": 0, "SUkr": 0, "TU0AK": 0, "AAAADGpQ": 0, "AAAADEpY": 0, "Z0eX": 6,
}  # fmt: skip
_FIRST_BYTES: Final = tuple(
    f"b{quote}{magic}"
    for quote in "'\""
    for magic in (r"\x89PNG", r"\xff", "GIF8", "RIFF", "BM", "II", "MM", r"\x00")
)
_URL: Final = "data:image"

# Base64 as it stands in JSON too, where a slash may be escaped and a line break is two letters.
_LETTER: Final = r"[A-Za-z0-9+/_=%-]|\\/|\\u00(?:2[bBfF]|3[dD])|\\r|\\n"
_RUN: Final = re.compile(
    rf"(?:[A-Za-z0-9+/]{{60,76}}\r?\n)*+(?:[A-Za-z0-9+/_=%-]++|{_LETTER})*+", re.DOTALL
)
# SVG is text to whoever reads text.
_URL_HEAD: Final = re.compile(r"(?i:data:image\\?/(?!svg))[^,\s\"'<>]{0,200},")
_BASE64_HEAD: Final = re.compile(
    rf"(?<![A-Za-z0-9+/_-])(?:{_LETTER}|\r?\n){{{MIN_BASE64},{4 * MIN_BASE64}}}"
)
_BYTES: Final = re.compile(r"b'(?:[^'\\]|\\.)*+'|b\"(?:[^\"\\]|\\.)*+\"", re.DOTALL)
_ESCAPES: Final = re.compile(r"\\(?:u00(2[bBfF]|3[dD])|([/rn]))")


def split(text: str) -> tuple[Found, ...]:
    """Return a text with the images in it in their places; the text alone if there are none."""
    pieces: list[Found] = []
    told = 0
    for place in sorted(set(_candidates(text))):
        found = _image_at(text, place) if place >= told else None
        if found is None:
            continue
        media, end = found
        if place > told:
            pieces.append(Text(text[told:place], from_tool=True))
        pieces.append(media)
        told = end
    if told < len(text):
        pieces.append(Text(text[told:], from_tool=True))
    return tuple(pieces)


def _candidates(text: str) -> Iterator[int]:
    """Yield the places at which an image may begin."""
    if text.isascii():
        yield from _places(text.lower(), _URL)
    else:  # where small letters may be more than capitals
        yield from (match.start() for match in re.finditer(_URL, text, re.IGNORECASE))
    for letters, before in _FIRST_LETTERS.items():
        yield from (place - before for place in _places(text, letters) if place >= before)
    if "b'" in text or 'b"' in text:
        for start in _FIRST_BYTES:
            yield from _places(text, start)


def _places(text: str, part: str) -> Iterator[int]:
    place = text.find(part)
    while place >= 0:
        yield place
        place = text.find(part, place + 1)


def _image_at(text: str, place: int) -> tuple[Media, int] | None:
    """Return the image that begins at a place, and where its text ends."""
    if text.startswith("b", place):
        return _literal_at(text, place)
    if head := _URL_HEAD.match(text, place):
        end = _end_of_run(text, head.end())
        long_enough = end - head.end() >= MIN_BASE64
        return (Media(Link(_unescaped(text[place:end]))), end) if long_enough else None
    head = _BASE64_HEAD.match(text, place)
    if head is None or not is_encoded_image(_unescaped(head[0])):
        return None
    end = _end_of_run(text, place)
    return Media(Encoded(_unescaped(text[place:end]))), end


def _literal_at(text: str, place: int) -> tuple[Media, int] | None:
    """Return bytes as Python writes them."""
    literal = _BYTES.match(text, place)
    try:
        data = ast.literal_eval(literal[0]) if literal else None
    except (ValueError, SyntaxError):
        return None
    if literal is None or not isinstance(data, bytes) or not is_image(data):
        return None
    return Media(data), literal.end()


def _end_of_run(text: str, place: int) -> int:
    run = _RUN.match(text, place)
    return run.end() if run else place


def _unescaped(text: str) -> str:
    return _ESCAPES.sub(_letter, text) if "\\" in text else text


def _letter(escape: re.Match[str]) -> str:
    if escape[1]:
        return chr(int(escape[1], 16))
    return "/" if escape[2] == "/" else "\n"
