"""Finds the one medium that a block itself names, in every provider's form.

Nothing is decoded, opened or fetched here. A block that names several media is ambiguous, and every
key of a block that is not read must provably hold none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from PIL import Image

from safecode_guard.errors import ForbiddenSource, UnreadableImage, UnsupportedMedia
from safecode_guard.turns.found import Encoded, Link, Media, Refused, label, refuse, word
from safecode_guard.turns.plain import plain_references, plain_state

OTHER_MEDIA: Final = frozenset(
    {
        "audio", "video", "document", "input_audio", "output_audio", "input_video", "audio_url",
        "video_url", "container_upload",
    }
)  # fmt: skip
_IMAGE_TYPES: Final = frozenset(
    {"image", "image_url", "input_image", "image_generation_call", "computer_screenshot"}
)
_FILE_TYPES: Final = frozenset({"file", "input_file", "document", "media"})

_RECORD_KEYS: Final = (
    "data", "bytes", "base64", "url", "file_uri", "fileUri", "path", "file_id", "s3Location",
    "s3_location",
)  # fmt: skip

IN_MEMORY: Final = bytes | bytearray | memoryview | Image.Image
"""How an image may be given without being written as text."""


class Block:
    """A block, and which of its keys have been read."""

    def __init__(self, raw: Mapping[Any, Any], kind: str) -> None:
        self.raw, self.kind = raw, kind
        self._read = {"type"}

    @classmethod
    def of(cls, raw: Mapping[Any, Any]) -> Block:
        """Return a block of the type that it says it is, or of none."""
        return cls(raw, word(raw, "type"))

    def take(self, key: str) -> Any:
        """Return a key's value, and note that it was read."""
        self._read.add(key)
        return self.raw.get(key)

    def rest(self) -> dict[Any, Any]:
        """Return what has not been read."""
        return {key: value for key, value in self.raw.items() if key not in self._read}

    def refused_rest(self, *, reference: bool = False) -> Refused | None:
        """Refuse the block if what has not been read holds media, or may name some."""
        try:
            (plain_references if reference else plain_state)(self.rest())
        except UnsupportedMedia as error:
            return Refused(label(self.kind), error)
        return None


def media_of(block: Block) -> list[Media | Refused]:
    """Return a block's own media, without those of the blocks that it holds.

    More than one means that the block is ambiguous.
    """
    return list(_media(block))


def _media(block: Block) -> Iterator[Media | Refused]:
    mime, kind = _mime(block.raw), block.kind
    certain = kind in _IMAGE_TYPES
    if kind in OTHER_MEDIA and kind != "document":
        yield refuse(kind, f"Media of type {kind!r} cannot be judged.")
        for key in block.raw:
            block.take(key)
        return
    for key in ("image_url", "image"):
        if (value := block.take(key)) is not None:
            yield _from_value(value)
    for value in _as_list(block.take("images")):
        yield _from_value(value)
    if (value := block.take("base64")) is not None:
        yield _from_data(value, mime, certain=certain)
    yield from _from_records(block, mime)
    if kind in _IMAGE_TYPES or kind in _FILE_TYPES:
        yield from _from_typed(block, mime)
    for key in sorted(OTHER_MEDIA):
        if (value := block.take(key)) is not None:
            yield refuse(key, f"Media of type {key!r} cannot be judged.")


def _from_records(block: Block, mime: str) -> Iterator[Media | Refused]:
    """Yield media under keys whose value is a record of its own."""
    source = block.raw.get("source")
    if isinstance(source, Mapping) and not is_document(source):
        yield _from_record(block.take("source"), mime, certain=block.kind in _IMAGE_TYPES)
    for key in ("inline_data", "inlineData"):
        if (value := block.take(key)) is not None:
            yield _from_record(value, mime, certain=False)
    for key in ("file_data", "fileData"):
        value = block.take(key)
        if isinstance(value, str):
            yield _from_url(value, mime, certain=False)
        elif value is not None:
            yield _from_record(value, mime, certain=False)
    if block.kind and isinstance(block.raw.get("file"), Mapping):
        yield from _from_file(block.take("file"))


def _from_file(record: Mapping[Any, Any]) -> Iterator[Media | Refused]:
    inner = Block(record, "file")
    media = [] if isinstance(record.get("file"), Mapping) else media_of(inner)
    refused = inner.refused_rest()
    yield from (refused,) if refused else media


def _from_typed(block: Block, mime: str) -> Iterator[Media | Refused]:
    """Yield media under keys that mean media only in a block of a media type."""
    certain = block.kind in _IMAGE_TYPES
    data_key = "result" if block.kind == "image_generation_call" else "data"
    if (value := block.take(data_key)) is not None:
        yield _from_data(value, mime, certain=certain)
    for key in ("url", "path", "file_uri", "fileUri", "file_url"):
        if (value := block.take(key)) is not None:
            yield _from_url(value, mime, certain=certain)
    ids = [block.take("file_id")]
    if word(block.raw, "source_type") == "id":
        ids.append(block.take("id"))
    if any(_is_given(each) for each in ids):
        yield _forbidden_file("image" if certain else block.kind)


def _is_given(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value)


def _from_record(record: Any, mime: str, *, certain: bool) -> Media | Refused:
    """Read a source such as ``{type, media_type, data}``, ``{bytes}``, ``{url}``, ``{file_id}``."""
    if not isinstance(record, Mapping):
        return refuse("image", "A source is no mapping.")
    block = Block(record, "image")
    mime = _mime(record) or mime
    given = [(key, value) for key in _RECORD_KEYS if (value := block.take(key)) is not None]
    if refused := block.refused_rest():
        return refused
    if len(given) != 1:
        how_many = "more than one place" if given else "no place"
        return refuse("image", f"A source names {how_many} to find its bytes.")
    key, value = given[0]
    if key in ("data", "bytes", "base64"):
        return _from_data(value, mime, certain=certain)
    if key in ("url", "file_uri", "fileUri", "path"):
        return _from_url(value, mime, certain=certain)
    return _forbidden_file("image" if certain else "file")


def _from_value(value: Any) -> Media | Refused:
    """Read what stands under ``image`` or ``image_url``."""
    if isinstance(value, str):
        return Media(Link(str.__str__(value)))
    if isinstance(value, IN_MEMORY):
        return in_memory(value)
    if not isinstance(value, Mapping):
        return refuse("image", f"An image is given as {type(value).__name__}.")
    if not isinstance(value.get("source"), Mapping):
        return _from_record(value, "", certain=True)
    outer = Block(value, "image")
    media = _from_record(outer.take("source"), "", certain=True)
    return outer.refused_rest() or media


def _from_data(value: Any, mime: str, *, certain: bool) -> Media | Refused:
    if not certain and not mime.startswith("image/"):
        return _not_an_image(mime)
    if isinstance(value, IN_MEMORY):
        return in_memory(value)
    if isinstance(value, str):
        return Media(Encoded(str.__str__(value)))
    return Refused("image", UnreadableImage(f"Image data is given as {type(value).__name__}."))


def _from_url(value: Any, mime: str, *, certain: bool) -> Media | Refused:
    if not isinstance(value, str):
        return Refused(
            "image",
            ForbiddenSource(
                f"An image is named by {type(value).__name__}.", hint="Send its bytes as base64."
            ),
        )
    is_image = certain or mime.startswith("image/")
    if not is_image and value.lstrip()[:11].lower() != "data:image/":
        return _not_an_image(mime)
    return Media(Link(str.__str__(value)))


def in_memory(value: bytes | bytearray | memoryview | Image.Image) -> Media | Refused:
    """Return an image that is given as an object."""
    if isinstance(value, Image.Image):
        return Media(value)
    try:
        return Media(bytes(value))
    except ValueError:  # a view of memory that was given back
        return Refused("image", UnreadableImage("The image's memory is not there any more."))


def is_document(source: Mapping[Any, Any]) -> bool:
    """Return whether a source is a document's text, or the blocks that it is made of."""
    return word(source, "type") in ("text", "content")


def _mime(record: Mapping[Any, Any]) -> str:
    given = (word(record, key) for key in ("mime_type", "media_type", "mimeType", "mediaType"))
    return next(filter(None, given), "").strip().lower()


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _not_an_image(mime: str) -> Refused:
    named = "/".join(map(label, mime.split("/", 1)))
    return refuse("file", f"A file of type {named!r} is no image.")


def _forbidden_file(kind: str) -> Refused:
    error = ForbiddenSource(
        "A file is named by an id or a storage location, not sent.",
        hint="Send the image's bytes as base64.",
    )
    return Refused(label(kind), error)
