"""Finds images in what a tool returned besides its text: ``ToolMessage.artifact``.

No model is shown an artifact, but whoever reads the message may use it, so its images are judged.
They are looked for where their bytes are at hand. Addresses in an artifact are followed by nobody
here, and are no images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from io import BytesIO
from itertools import islice
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final

from safecode_guard.turns.blocks import MAX_DEPTH
from safecode_guard.turns.found import Encoded, Link, Media, Source
from safecode_guard.turns.media import IN_MEMORY, in_memory
from safecode_guard.turns.signatures import HEAD, is_encoded_image, is_image

MAX_VALUES: Final = 10_000
"""Values of an artifact that are looked at: it may be a table of any size."""

_CODE: Final = (type, ModuleType, FunctionType, MethodType)
_NUMBERS: Final = frozenset({bool, int, float, type(None)})
_DATA_KEYS: Final = ("data", "base64", "blob", "bytes")
_MIME_KEYS: Final = ("mimeType", "mime_type", "media_type", "mediaType")


def images_in(artifact: Any) -> list[Media]:
    """Return the images in an artifact: bytes, base64 and data: URLs, however they are wrapped."""
    images: list[Media] = []
    waiting = [(artifact, 0)]
    for left in range(MAX_VALUES, 0, -1):
        if not waiting:
            break
        value, depth = waiting.pop()
        if type(value) in _NUMBERS:
            continue
        image = _image(value)
        if image is not None:
            images.append(image)
        elif depth <= MAX_DEPTH and not isinstance(value, str):
            waiting += [(item, depth + 1) for item in _inside(value, left)][::-1]
    return images


def _image(value: Any) -> Media | None:
    if isinstance(value, str):
        if value.lstrip()[:11].lower() == "data:image/":
            return Media(Link(str.__str__(value)))
        return Media(Encoded(str.__str__(value))) if is_encoded_image(value) else None
    if isinstance(value, BytesIO):
        value = value.getvalue()
    if isinstance(value, IN_MEMORY):
        found = in_memory(value)
        return found if isinstance(found, Media) and _is_an_image(found.source) else None
    return None if isinstance(value, list | tuple) else _declared(_record(value))


def _is_an_image(source: Source) -> bool:
    return not isinstance(source, bytes) or is_image(source[:HEAD])


def _inside(value: Any, most: int) -> Iterable[Any]:
    """Return the first values that a value holds, at most as many as may still be looked at."""
    if isinstance(value, list | tuple):
        return value[:most]
    if isinstance(value, set | frozenset | deque):
        return islice(value, most)
    return islice(_record(value).values(), most)


def _record(value: Any) -> Mapping[str, Any]:
    """Return the fields of a mapping, or of an object that holds data, such as MCP's contents."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, _CODE):
        return {}
    if is_dataclass(value):  # its fields may be in slots
        return {each.name: getattr(value, each.name, None) for each in fields(value)}
    held = getattr(value, "__dict__", {})
    return held if isinstance(held, Mapping) else {}


def _declared(record: Mapping[str, Any]) -> Media | None:
    """Return the image that a record says it is: base64 beside the mime type of an image."""
    mimes = [record.get(key) for key in _MIME_KEYS]
    if not any(isinstance(mime, str) and mime.lower().startswith("image/") for mime in mimes):
        return None
    for key in _DATA_KEYS:
        value = record.get(key)
        if isinstance(value, str) and value:
            return _image(value) or Media(Encoded(str.__str__(value)))
    return None
