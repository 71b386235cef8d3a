"""Finds images in what a tool returned besides its text: ``ToolMessage.artifact``.

No model is shown an artifact, but whoever reads the message may use it, so its images are judged.
They are looked for where their bytes are at hand. Addresses in an artifact are followed by nobody
here, and are no images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from itertools import islice
from typing import Any, Final

from PIL import Image

from safecode_guard.turns.blocks import MAX_DEPTH, Encoded, Link, Media
from safecode_guard.turns.signatures import HEAD, is_encoded_image, is_image

MAX_VALUES: Final = 10_000
"""Values of an artifact that are looked at: it may be a table of any size."""

_DATA_KEYS: Final = ("data", "base64", "blob", "bytes")
_MIME_KEYS: Final = ("mimeType", "mime_type", "media_type", "mediaType")


def images_in(artifact: Any) -> list[Media]:
    """Return the images in an artifact: bytes, base64 and data: URLs, however they are wrapped."""
    return [media for media in islice(_walk(artifact, 0), MAX_VALUES) if media is not None]


def _walk(value: Any, depth: int) -> Iterator[Media | None]:
    """Yield the image in each value, or None for one that holds none."""
    yield _from_value(value)
    if depth > MAX_DEPTH:
        return
    if isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item, depth + 1)
        return
    record = _record(value)
    declared = _declared(record)
    if declared is not None:
        yield declared
        return
    for item in record.values():
        yield from _walk(item, depth + 1)


def _from_value(value: Any) -> Media | None:
    if isinstance(value, Image.Image):
        return Media(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return Media(bytes(value)) if is_image(bytes(value[:HEAD])) else None
    if not isinstance(value, str):
        return None
    if value.lstrip()[:11].lower() == "data:image/":
        return Media(Link(str.__str__(value)))
    return Media(Encoded(str.__str__(value))) if is_encoded_image(value) else None


def _record(value: Any) -> Mapping[str, Any]:
    """Return the fields of a mapping, of a dataclass, or of a model such as MCP's contents."""
    if isinstance(value, Mapping):
        return value
    kind = type(value)
    if is_dataclass(kind) or hasattr(kind, "model_fields"):
        fields: Mapping[str, Any] = getattr(value, "__dict__", {})
        return fields
    return {}


def _declared(record: Mapping[str, Any]) -> Media | None:
    """Return the image that a record says it is: base64 beside the mime type of an image."""
    mimes = [record.get(key) for key in _MIME_KEYS]
    if not any(isinstance(mime, str) and mime.lower().startswith("image/") for mime in mimes):
        return None
    for key in _DATA_KEYS:
        value = record.get(key)
        if isinstance(value, str) and value:
            return _from_value(value) or Media(Encoded(str.__str__(value)))
    return None
