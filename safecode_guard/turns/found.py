"""What is found in a message's content: text, media, a provider's state, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from safecode_guard.errors import ImageError, UnsupportedMedia


@dataclass(frozen=True)
class Text:
    """A run of text that the model sees."""

    text: str
    from_tool: bool = False
    """A tool returned it, so that it may be an image in disguise."""
    block: Mapping[str, Any] | None = None
    """The provider's own block that says just this, if it has to be handed back whole."""


@dataclass(frozen=True)
class Encoded:
    """Base64 text, not yet decoded."""

    text: str


@dataclass(frozen=True)
class Link:
    """What stands where a URL belongs: ``data:``, ``https:``, or something to be refused."""

    url: str


File = bytes | Encoded | Link
"""Where the encoded bytes of an image are."""
Source = File | Image.Image


@dataclass(frozen=True, eq=False)
class Media:
    """An image that a block claims to hold, and where its bytes are."""

    source: Source


@dataclass(frozen=True)
class Opaque:
    """A provider's own state, without text for a judge and proven to hold no media."""

    block: Mapping[str, Any]
    anywhere: bool = False
    """It has a meaning in messages other than an assistant's."""


@dataclass(frozen=True, eq=False)
class Refused:
    """Media that cannot be judged; ``error`` has no position yet."""

    kind: str
    error: ImageError


Found = Text | Media | Opaque | Refused


def word(record: Mapping[Any, Any], key: str) -> str:
    """Return what a record says under a key, if it says it in text."""
    value = record.get(key)
    return str.__str__(value) if isinstance(value, str) else ""


def label(kind: str) -> str:
    """Return a type as a plain word: it comes from a message and ends up in verdicts."""
    return _NO_WORD.sub("_", kind[:40]) or "unknown"


_NO_WORD: Final = re.compile(r"[^\w+-]")


def refuse(kind: str, reason: str) -> Refused:
    """Return the refusal of a medium of some kind."""
    hint = "Send images as base64 bytes with their mime type, and other media elsewhere."
    return Refused(label(kind), UnsupportedMedia(reason, hint=hint))
