"""Finds images in the text that a tool returned.

Frameworks write what a tool returns as text where they do not know its form: JSON with data: URLs
or base64 in it, Python's way of writing bytes. OpenAI's computer use even sends each screenshot as
a message whose whole text is a data: URL. The image takes the place of its text.
"""

from __future__ import annotations

import ast
import re
from typing import Final

from safecode_guard.turns.blocks import Encoded, Found, Link, Media, Text
from safecode_guard.turns.signatures import MIN_BASE64, is_encoded_image, is_image

# Base64 as it stands in JSON too, where a slash may be escaped and a line break is two letters.
_LETTERS: Final = r"(?:[A-Za-z0-9+/_=%-]++|\\/|\\u00(?:2[bBfF]|3[dD])|\\r|\\n)++"
_LINES: Final = rf"(?:[A-Za-z0-9+/]{{60,76}}\r?\n)*+{_LETTERS}"
# SVG is text to whoever reads text, and a mere mention has no letters after its comma.
_DATA_URL: Final = rf"(?i:data:image\\?/)(?!svg)[^,\s\"'<>]{{0,200}},{_LINES}"
_BYTES: Final = r"b'(?:[^'\\]|\\.)*+'|b\"(?:[^\"\\]|\\.)*+\""
_FIRST_LETTERS: Final = r"iVBOR|\\?/9j|R0lGOD|UklGR|Qk|SUk|TU0A|AAAA|/0"
_BASE64: Final = rf"(?<![A-Za-z0-9+/_=-])(?={_FIRST_LETTERS}){_LINES}"
_CANDIDATE: Final = re.compile(f"(?P<url>{_DATA_URL})|(?P<bytes>{_BYTES})|(?P<base64>{_BASE64})")

_ESCAPES: Final = re.compile(r"\\(?:u00(2[bBfF]|3[dD])|([/rn]))")


def split(text: str) -> tuple[Found, ...]:
    """Return a text with the images in it in their places; the text alone if there are none."""
    pieces: list[Found] = []
    start = 0
    for match in _CANDIDATE.finditer(text):
        media = _media(match)
        if media is None:
            continue
        if match.start() > start:
            pieces.append(Text(text[start : match.start()], from_tool=True))
        pieces.append(media)
        start = match.end()
    if start < len(text):
        pieces.append(Text(text[start:], from_tool=True))
    return tuple(pieces)


def _media(match: re.Match[str]) -> Media | None:
    if match["bytes"]:
        return _from_literal(match["bytes"])
    found = match[0]
    if len(found.rpartition(",")[2]) < MIN_BASE64:
        return None
    text = _unescaped(found)
    if match["url"]:
        return Media(Link(text))
    return Media(Encoded(text)) if is_encoded_image(text) else None


def _from_literal(literal: str) -> Media | None:
    """Read bytes as Python writes them."""
    try:
        data = ast.literal_eval(literal)
    except (ValueError, SyntaxError):
        return None
    return Media(data) if isinstance(data, bytes) and is_image(data) else None


def _unescaped(text: str) -> str:
    return _ESCAPES.sub(_letter, text) if "\\" in text else text


def _letter(escape: re.Match[str]) -> str:
    if escape[1]:
        return chr(int(escape[1], 16))
    return "/" if escape[2] == "/" else "\n"
