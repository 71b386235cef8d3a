"""Proves that a provider's own data holds no media, by making a copy that cannot hold any.

Reasoning with its signature, tool calls and their like are handed back to a model as they came,
because a tool loop needs them, and no judge is shown them. So nothing in them may be an image, or
name one: no bytes, no data: URL, no key that providers read as a source of media. Arguments of
tools are different: ``{"url": ...}`` is a word among words there, and only bytes and data: URLs
are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from safecode_guard.errors import UnsupportedMedia
from safecode_guard.turns.signatures import is_encoded_image

MAX_LEVELS: Final = 64
"""Levels of nesting that are copied; what providers send has about ten."""

# Keys that name a source of media, written without case, underscores and hyphens.
_SOURCES: Final = frozenset(
    {
        "image", "images", "imageurl", "imageurls", "inputimage", "screenshot", "picture", "photo",
        "inlinedata", "file", "files", "filepath", "filedata", "fileid", "fileids", "fileuri",
        "fileurl", "source", "url", "uri", "path", "blob", "bytes", "data", "base64", "b64",
        "b64json", "base64data", "media", "mediadata", "document", "documents", "audio", "audiourl",
        "inputaudio", "outputaudio", "video", "videourl", "inputvideo", "s3location", "attachment",
        "attachments", "imagedata", "resource", "containerupload",
    }
)  # fmt: skip

# Of these, what a reference may name, for nobody follows it: a search result's address.
_POINTERS: Final = frozenset({"url", "uri", "path", "filepath", "source", "fileid", "fileids"})
_UNFOLLOWED: Final = _SOURCES - _POINTERS

_REFERENCE_KEYS: Final = frozenset(
    {
        "annotations", "citations", "action", "results", "search_results", "sources", "metadata",
        "extras",
    }
)  # fmt: skip
_REFERENCE_TYPES: Final = frozenset(
    {
        "citation", "citations", "url_citation", "file_citation", "container_file_citation",
        "file_path", "non_standard_annotation", "search_result", "web_search_result",
        "web_fetch_result", "web_search_result_location", "search_result_location",
        "char_location", "page_location", "content_block_location",
    }
)  # fmt: skip

# Types of blocks that are media, if only by an id.
MEDIA_TYPES: Final = frozenset(
    {
        "image", "image_url", "input_image", "image_generation_call", "computer_screenshot",
        "file", "input_file", "media", "audio", "input_audio", "audio_url", "video",
        "input_video", "video_url", "container_upload",
    }
)  # fmt: skip

# Keys of a tool's arguments, and of the schemas that describe them.
_ARGUMENT_KEYS: Final = frozenset(
    {"input", "args", "arguments", "parameters", "tools", "input_schema"}
)

_ARGUMENTS: Final[frozenset[str]] = frozenset()
"""What a tool's arguments may not name: nothing is forbidden by its name there."""

_DATA_URL: Final = re.compile(r"\A\s*data:[^,\s]*,|data:image", re.IGNORECASE)


def plain_state(value: Any) -> Any:
    """Return a copy of a provider's own data.

    Raises:
        UnsupportedMedia: If it holds media, names a source of some, is no plain data, refers to
            itself or is nested beyond reason.
    """
    return _copied_or_refused(value, _SOURCES)


def plain_references(value: Any) -> Any:
    """Return a copy of data that may name addresses and files which nobody follows.

    Raises:
        UnsupportedMedia: As `plain_state` does, but for the keys of a reference.
    """
    return _copied_or_refused(value, _UNFOLLOWED)


def plain_arguments(value: Any) -> Any:
    """Return a copy of a tool's arguments, whose keys may be named anything.

    Raises:
        UnsupportedMedia: If there are bytes, images or data: URLs in it, or objects of any kind.
        RecursionError: If it refers to itself or is nested beyond reason.
    """
    return _copied(value, _ARGUMENTS, 0)


def is_reference(kind: str) -> bool:
    """Return whether blocks of a type refer to something that they do not hold."""
    return kind in _REFERENCE_TYPES


def _copied_or_refused(value: Any, named: frozenset[str]) -> Any:
    try:
        return _copied(value, named, 0)
    except RecursionError as error:
        raise UnsupportedMedia(str(error), hint=_HINT) from error


def _copied(value: Any, named: frozenset[str], depth: int) -> Any:
    if depth > MAX_LEVELS:
        raise RecursionError(f"Data is nested deeper than {MAX_LEVELS} levels.")
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {key: _entry(value, key, named, depth) for key in value}
    if isinstance(value, list | tuple):
        return [_copied(item, named, depth + 1) for item in value]
    raise UnsupportedMedia(f"Data that no judge is shown holds {_a(value)}.", hint=_HINT)


def _entry(record: Mapping[Any, Any], key: Any, named: frozenset[str], depth: int) -> Any:
    value = record[key]
    if not isinstance(key, str):
        if not isinstance(key, int | float | None):
            raise UnsupportedMedia(f"Data that no judge is shown has {_a(key)} as key.", hint=_HINT)
        return _copied(value, named, depth + 1)
    if key in _ARGUMENT_KEYS:
        return _copied(value, _ARGUMENTS, depth + 1)
    kind = _type(record)
    if named and kind in MEDIA_TYPES:
        raise UnsupportedMedia(
            f"Data that no judge is shown holds a block of type {kind!r}.", hint=_HINT
        )
    here = named & _UNFOLLOWED if kind in _REFERENCE_TYPES else named
    if _is_source(key, here) and _can_be_media(value) and not _is_exempt(key, value, kind):
        raise UnsupportedMedia(
            f"Data that no judge is shown names a source of media: {key[:40]!r}.", hint=_HINT
        )
    return _copied(value, here & _UNFOLLOWED if key in _REFERENCE_KEYS else here, depth + 1)


def _type(record: Mapping[Any, Any]) -> str:
    kind = record.get("type")
    return kind if isinstance(kind, str) else ""


def _is_source(key: str, named: frozenset[str]) -> bool:
    return key.replace("_", "").replace("-", "").lower() in named


def _can_be_media(value: Any) -> bool:
    if isinstance(value, str | Mapping | list | tuple):
        return len(value) > 0
    return not (value is None or isinstance(value, bool | int | float))


def _is_exempt(key: str, value: Any, kind: str) -> bool:
    """Return whether a source is known to be none: encrypted reasoning, or a document of text."""
    if key == "data" and isinstance(value, str):
        return kind in ("redacted_thinking", "text")
    return key == "source" and isinstance(value, Mapping) and _type(value) == "text"


def is_media_text(value: str) -> bool:
    """Return whether a text is an encoded image, or holds a data: URL."""
    return _DATA_URL.search(value) is not None or is_encoded_image(value)


def _text(value: str) -> str:
    if is_media_text(value):
        raise UnsupportedMedia(
            "Data that no judge is shown holds an encoded image or a data: URL.", hint=_HINT
        )
    return str.__str__(value)


def _a(value: Any) -> str:
    return f"an object of type {type(value).__name__}"


_HINT: Final = "Send images as blocks of the message's content."
