"""Tells of a plain PNG file that it is whole, without making its pixels.

A screenshot of 1920x1080 has eight megabytes of pixels, and many a judge never looks at them: one
that is behind a cache, that is sent files, or reads words. Its file is therefore inflated piece by
piece and thrown away. Nothing is repaired or forgiven here: what is not plain and right in every
byte is left to the decoder, which says what is wrong with it. The format is that of
https://www.w3.org/TR/png-3/.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.decoding import allowed_formats, pixel_limit

WORTH_IT: Final = 250_000
"""Pixels from which on; fewer are decoded about as fast as looked through."""

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PLAIN: Final = (8, 2, 0, 0, 0)
"""Bits, RGB without alpha, the one compression and the one set of filters, not interlaced."""
_SAMPLES: Final = 3
_FILTERS: Final = bytes(range(5))
_SAYS_NOTHING: Final = {b"pHYs": 9, b"sRGB": 1, b"sBIT": _SAMPLES, b"tIME": 7}
"""Chunks that change no pixel for any reader, and the length of each."""
_PIECE: Final = 1 << 14
_INFLATED: Final = 1 << 16


class Size(NamedTuple):
    """Of a picture, in pixels."""

    width: int
    height: int


def size_of_intact(
    data: bytes, policy: ImagePolicy, *, deadline: float | None = None
) -> Size | None:
    """Return the size of a file whose pixels can be made whenever they are wanted.

    Args:
        data: The file.
        policy: Its limits.
        deadline: When to give up, in seconds of ``time.monotonic``.

    Returns:
        None for all that has to be decoded to know: small pictures, other formats, transparency,
        animation, rotation, colour profiles, texts, what is too large, late, or damaged.

    Raises:
        PolicyError: If the policy allows a format that cannot be checked.
    """
    if "PNG" not in allowed_formats(policy) or not data.startswith(_SIGNATURE):
        return None
    end = time.monotonic() + policy.decode_timeout_s
    try:
        size, stored = _read(data)
    except (_NotPlain, struct.error):
        return None
    if not WORTH_IT <= size.width * size.height <= pixel_limit(policy):
        return None
    whole = _is_whole(stored, size, end if deadline is None else min(end, deadline))
    return size if whole else None


class _NotPlain(Exception):
    """A file that the decoder has to look at."""


def _read(data: bytes) -> tuple[Size, bytes]:
    """Return the size and the compressed rows of a file that has nothing else in it."""
    (first, header), *rest = _chunks(data) or [(b"", b"")]
    kinds = [kind for kind, _ in rest]
    start = kinds.index(b"IDAT") if b"IDAT" in kinds else len(kinds)
    rows = rest[start:-1]
    if first != b"IHDR" or rest[-1:] != [(b"IEND", b"")]:
        raise _NotPlain
    if any(_SAYS_NOTHING.get(kind) != len(body) for kind, body in rest[:start]):
        raise _NotPlain
    if not rows or any(kind != b"IDAT" for kind, _ in rows):
        raise _NotPlain
    width, height, *form = struct.unpack(">IIBBBBB", header)
    if tuple(form) != _PLAIN:
        raise _NotPlain
    return Size(width, height), b"".join(body for _, body in rows)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the kind and the body of each chunk, to the last byte of the file."""
    chunks = []
    place = len(_SIGNATURE)
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, place + 8 + length)
        if zlib.crc32(body, zlib.crc32(kind)) != checksum:
            raise _NotPlain
        chunks.append((kind, body))
        place += length + 12
    return chunks


def _is_whole(stored: bytes, size: Size, end: float) -> bool:
    """Return whether rows inflate to exactly as many bytes as they should, each well begun.

    A row is the number of its filter and then its samples; the stream ends with a checksum.
    """
    stride = 1 + _SAMPLES * size.width
    count = 0
    stream = zlib.decompressobj()
    try:
        for piece in _inflated(stream, stored):
            if time.monotonic() > end or piece[-count % stride :: stride].translate(None, _FILTERS):
                return False
            count += len(piece)
            if count > stride * size.height:
                return False
    except zlib.error:
        return False
    return stream.eof and not stream.unused_data and count == stride * size.height


def _inflated(stream: zlib._Decompress, stored: bytes) -> Iterator[bytes]:
    """Yield what a stream holds, never much of it at a time."""
    for place in range(0, len(stored), _PIECE):
        left = stored[place : place + _PIECE]
        while left and not stream.eof:
            yield stream.decompress(left, _INFLATED)
            left = stream.unconsumed_tail
        if stream.eof and place + _PIECE < len(stored):
            raise zlib.error("bytes behind the end")
