"""Numbers as short text: variable-length bytes in base64, as they travel in a spec."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from itertools import pairwise

MOST_BYTES = 4
"""Of one number: 28 bits."""


def pack(numbers: Iterable[int]) -> str:
    """Return numbers >= 0 as text, one to four bytes each, seven bits a byte, low ones first.

    Example:
        >>> pack([1, 300])
        'AawC'
    """
    packed = bytearray()
    for number in numbers:
        while number >= 0x80:
            packed.append(number & 0x7F | 0x80)
            number >>= 7
        packed.append(number)
    return base64.b64encode(packed).decode()


def unpack(text: object) -> Iterator[int]:
    """Yield the numbers that `pack` wrote.

    Raises:
        ValueError: If it is no such text, or a number is cut off or too long.
    """
    if not isinstance(text, str):
        raise ValueError("packed numbers must be a text")
    number = shift = 0
    for byte in base64.b64decode(text.encode(), validate=True):
        if shift >= 7 * MOST_BYTES:
            raise ValueError("a packed number is too long")
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("a packed number is cut off")


def pack_ids(ids: Iterable[int]) -> str:
    """Return a set of ids as text: sorted, each as its distance from the one before."""
    ordered = [0, *sorted(set(ids))]
    return pack(after - before for before, after in pairwise(ordered))


def unpack_ids(text: object) -> frozenset[int]:
    """Return the ids that `pack_ids` wrote.

    Raises:
        ValueError: If it is no such text, or an id stands in it twice.
    """
    ids: list[int] = []
    for distance in unpack(text):
        if ids and distance == 0:
            raise ValueError("an id stands twice in a packed set")
        ids.append((ids[-1] if ids else 0) + distance)
    return frozenset(ids)
