"""Tells an image by the first bytes of its file, or of its base64.

Used where nobody says what bytes are: in a tool's text, in artifacts, in a provider's own state. A
format that cannot be judged counts as well: it is an image, and is refused as one.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

HEAD: Final = 32
"""Bytes that are looked at."""

MIN_BASE64: Final = 32
"""Characters below which base64 holds no picture worth the name."""

_MAGIC: Final = (
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\0\0\0\x0cjP  ",
    b"\0\0\0\x0cJXL ",
    b"\xff\x4f\xff\x51",
)
_JPEG_MARKERS: Final = frozenset({*range(0xC0, 0xD0), *range(0xDB, 0xF0), 0xFE})
_BMP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_BRANDS: Final = frozenset({b"avif", b"avis", b"mif1", b"msf1", b"heic", b"heix", b"hevc", b"heis"})
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]+")


def is_image(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is an image."""
    if head.startswith(_MAGIC):
        return True
    if head[:3] == b"\xff\xd8\xff":
        return len(head) > 3 and head[3] in _JPEG_MARKERS
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in _BRANDS
    # Two letters alone would be no proof: the reserved field and the header's size have to fit.
    reserved, size = head[6:10], int.from_bytes(head[14:18], "little")
    return head[:2] == b"BM" and reserved == bytes(4) and size in _BMP_HEADERS


def is_encoded_image(text: str, *, certain: bool = False) -> bool:
    """Return whether a text begins as the base64 of an image does, in either alphabet.

    Args:
        text: The text.
        certain: In the middle of other letters three bytes are no proof: a JPEG's first segment
            has to be one that JPEGs begin with.
    """
    if len(text) < MIN_BASE64:
        return False
    head = "".join(text[: 2 * HEAD].split())[: HEAD // 3 * 4]
    if not _BASE64.fullmatch(head):
        return False
    head = head[: len(head) // 4 * 4].replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(head)
    except (binascii.Error, ValueError):
        return False
    return is_image(data) and not (certain and data[:2] == b"\xff\xd8" and not _begins_jpeg(data))


def _begins_jpeg(data: bytes) -> bool:
    """Return whether the first segment is a known one: by its name, or a table of its length."""
    named = data[6:10] in (b"JFIF", b"JFXX", b"Exif", b"ICC_", b"Adob", b"http", b"MPF\0")
    return named or (data[3] == 0xDB and data[4:6] in (b"\0\x43", b"\0\x84", b"\0\xc5"))
