"""Finds images in the text that a tool returned.

Frameworks write what a tool returns as text where they do not know its form: JSON with data: URLs
or base64 in it, Python's way of writing bytes. OpenAI's computer use even sends each screenshot as
a message whose whole text is a data: URL. The image takes the place of its text.

Tools return long texts, and each is read at every step of an agent: where an image may begin is
found by plain search, and only there a pattern is tried.
"""

from __future__ import annotations

import ast
import json
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
    for quote in ("'", '"', r"\"")
    for magic in (
        r"\x89PNG", r"\xff", "GIF8", "RIFF", "BM", "II", "MM", r"\x00",
        r"\\x89PNG", r"\\xff", r"\\x00",
    )
)  # fmt: skip
_URL: Final = "data:image"

# Base64 as it stands in JSON too, where a slash may be escaped and a line break is two letters.
_LETTER: Final = r"[A-Za-z0-9+/_=%-]|\\/|\\u00(?:2[bBfF]|3[dD])|\\r|\\n"
_RUN: Final = re.compile(
    rf"(?:[A-Za-z0-9+/]{{60,76}}\r?\n)*+(?:[A-Za-z0-9+/_=%-]++|{_LETTER})*+", re.DOTALL
)
# SVG is text to whoever reads text.
_URL_HEAD: Final = re.compile(r"(?i:data:image\\?/(?!svg))[^,\s\"'<>]{0,200},")
_BASE64_HEAD: Final = re.compile(rf"(?:{_LETTER}|\r?\n){{{MIN_BASE64},{4 * MIN_BASE64}}}")
_INSIDE_A_WORD: Final = re.compile(r"[A-Za-z0-9+/_-]")
_CHUNK: Final = re.compile(r"\s{1,3}([A-Za-z0-9+/_-]+={0,2})(?![^\s\"'<>)\]}\\])")
_BYTES: Final = re.compile(r"b'(?:[^'\\]|\\.)*+'|b\"(?:[^\"\\]|\\.)*+\"", re.DOTALL)
# The same inside of JSON, where each backslash is two.
_BYTES_IN_JSON: Final = re.compile(
    r"b'(?:[^'\\\"]|\\\\\\.|\\\\.|\\.)*+'|b\\\"(?:[^\"\\]|\\\\\\.|\\\\.)*+\\\"", re.DOTALL
)
_U_ESCAPED: Final = re.compile(
    rf"(?:[A-Za-z0-9+/=_-]{{0,8}}\\u00[2-7][0-9a-fA-F]){{{MIN_BASE64 // 4},}}[A-Za-z0-9+/=_-]*"
)
_U_ESCAPE: Final = re.compile(r"\\u00([2-7][0-9a-fA-F])")
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
    if r"\u00" in text:
        yield from (match.start() for match in _U_ESCAPED.finditer(text))
    if "b'" in text or 'b"' in text or r"b\"" in text:
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
        written = _unescaped(text[place : head.end()]) + _unescaped(text[head.end() : end])
        return (Media(Link(written)), end) if long_enough else None
    in_word = place > 0 and _INSIDE_A_WORD.match(text[place - 1]) is not None
    if not is_encoded_image(_unescaped(_head_at(text, place)), certain=in_word):
        return _u_escaped_at(text, place)
    end = _end_of_run(text, place)
    return Media(Encoded(_unescaped(text[place:end]))), end


def _head_at(text: str, place: int) -> str:
    """Return the first letters of what may be base64, perhaps in pieces."""
    if head := _BASE64_HEAD.match(text, place):
        return head[0]
    return text[place : _end_of_run(text, place)][: 4 * MIN_BASE64]


def _literal_at(text: str, place: int) -> tuple[Media, int] | None:
    """Return bytes as Python writes them, perhaps in JSON."""
    for literal, in_json in (
        (_BYTES_IN_JSON.match(text, place), True),
        (_BYTES.match(text, place), False),
    ):
        data = _evaluated(literal[0], in_json) if literal else b""
        if literal and is_image(data):
            return Media(data), literal.end()
    return None


def _evaluated(literal: str, in_json: bool) -> bytes:
    try:
        written = json.loads(f'"{literal}"') if in_json else literal
        data = ast.literal_eval(written)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return b""
    return data if isinstance(data, bytes) else b""


def _u_escaped_at(text: str, place: int) -> tuple[Media, int] | None:
    """Return an image whose letters are written as JSON escapes."""
    run = _U_ESCAPED.match(text, place)
    if run is None:
        return None
    plain = _U_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), run[0])
    if _URL_HEAD.match(plain):
        return Media(Link(plain)), run.end()
    return (Media(Encoded(plain)), run.end()) if is_encoded_image(plain) else None


def _end_of_run(text: str, place: int) -> int:
    """Return where base64 ends that may stand in pieces of one length, the last one shorter."""
    run = _RUN.match(text, place)
    end = run.end() if run else place
    length = end - place
    pieces = 0
    while (chunk := _CHUNK.match(text, end)) and length >= _SHORTEST and text[end - 1] != "=":
        if len(chunk[1]) != length and not (pieces and len(chunk[1]) < length):
            break
        pieces, end = pieces + 1, chunk.end()
        if len(chunk[1]) < length:
            break
    return end


_SHORTEST: Final = 4


def _unescaped(text: str) -> str:
    text = text.replace(" ", "").replace("\t", "") if " " in text or "\t" in text else text
    return _ESCAPES.sub(_letter, text) if "\\" in text else text


def _letter(escape: re.Match[str]) -> str:
    if escape[1]:
        return chr(int(escape[1], 16))
    return "/" if escape[2] == "/" else "\n"
