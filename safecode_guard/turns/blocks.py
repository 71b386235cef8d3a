"""Finds the text and the media in a message's raw content, in every provider's block form.

Nothing is decoded, opened or fetched here: a medium is yielded with the place where its bytes
are, and whatever this module does not recognise is yielded as refused. A block is never dropped
because it is unknown. Forms that are read: LangChain v1 and v0, OpenAI (chat and responses),
Anthropic, Bedrock Converse, Gemini, Hugging Face, and any of them wrapped in ``non_standard`` or
nested in tool results.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from safecode_guard.errors import ForbiddenSource, ImageError, UnreadableImage, UnsupportedMedia

MAX_DEPTH: Final = 8
"""Levels of wrapping that are followed; real messages use three."""


@dataclass(frozen=True)
class Text:
    """A run of text that the model sees."""

    text: str


@dataclass(frozen=True)
class Encoded:
    """Base64 text, not yet decoded."""

    text: str


@dataclass(frozen=True)
class Link:
    """What stands where a URL belongs: ``data:``, ``https:``, or something to be refused."""

    url: str


Source = bytes | Encoded | Link | Image.Image


@dataclass(frozen=True, eq=False)
class Media:
    """An image that a block claims to hold, and where its bytes are."""

    source: Source


@dataclass(frozen=True, eq=False)
class Refused:
    """Media that cannot be judged; ``error`` has no position yet."""

    kind: str
    error: ImageError


Found = Text | Media | Refused

# Types whose text is the message's text, and the key it is under.
_TEXT_TYPES: Final = {
    "text": "text",
    "text-plain": "text",
    "input_text": "text",
    "output_text": "text",
    "guard_content": "text",
    "refusal": "refusal",
    "logs": "logs",
}

# Types that hold no media and no text which is sent back to a model.
_SILENT_TYPES: Final = frozenset(
    {
        "reasoning", "reasoning_content", "thinking", "redacted_thinking", "thought",
        "tool_call", "tool_call_chunk", "invalid_tool_call", "tool_use", "function_call",
        "server_tool_call", "server_tool_call_chunk", "server_tool_use", "custom_tool_call",
        "input_json_delta", "mcp_tool_use", "mcp_call", "mcp_list_tools", "mcp_approval_request",
        "mcp_approval_response", "web_search_call", "web_search_result", "file_search_call",
        "computer_call", "local_shell_call", "tool_search_call", "executable_code",
        "citation", "citations", "non_standard_annotation", "cachePoint", "cache_point",
        "compaction", "tool_reference",
    }
)  # fmt: skip

# Types that hold other blocks; so does every type that ends in one of the suffixes.
_NESTING_TYPES: Final = frozenset({"non_standard", "message", "code_interpreter_call"})
_NESTING_SUFFIXES: Final = ("_result", "_output", "_response")
_NESTING_KEYS: Final = ("value", "content", "output", "outputs", "stdout", "stderr", "parts")
# Of these, the ones that providers also send empty.
_EMPTY_TYPES: Final = frozenset({"tool_result", "server_tool_result", "code_interpreter_call"})

# Keys of blocks without a type (Bedrock Converse, Gemini) which hold other blocks...
_WRAPPER_KEYS: Final = (
    "toolResult", "tool_result", "guardContent", "guard_content", "searchResult",
    "citationsContent", "function_response", "functionResponse",
)  # fmt: skip
_DESCENT_KEYS: Final = frozenset({*_NESTING_KEYS, *_WRAPPER_KEYS, "source"})
# ...which hold data that the model reads as JSON text...
_JSON_KEYS: Final = ("json", "response")
# ...which hold nothing that is sent back to a model...
_SILENT_KEYS: Final = frozenset(
    {
        "toolUse", "reasoningContent", "cachePoint", "cache_point", "cache_control",
        "function_call", "functionCall", "executable_code", "executableCode", "thought",
    }
)  # fmt: skip
# ...and which hold media that are no images.
_OTHER_MEDIA: Final = frozenset(
    {
        "audio", "video", "document", "input_audio", "output_audio", "input_video", "audio_url",
        "video_url", "container_upload",
    }
)  # fmt: skip

_IMAGE_TYPES: Final = frozenset(
    {"image", "image_url", "input_image", "image_generation_call", "computer_screenshot"}
)
_FILE_TYPES: Final = frozenset({"file", "input_file", "document", "media"})


def walk(content: Any, *, depth: int = 0) -> Iterator[Found]:
    """Yield the text and the media of a message's content, in order.

    Args:
        content: ``message.content`` as it is: text, a block, or a list of either.
        depth: Levels of wrapping above this content.
    """
    if content is None or content == "":
        return
    if isinstance(content, str):
        yield Text(content)
    elif depth > MAX_DEPTH:
        yield _refuse("nested", f"Blocks are nested deeper than {MAX_DEPTH} levels.")
    elif isinstance(content, Mapping):
        yield from _walk_block(content, depth)
    elif isinstance(content, list | tuple):
        for item in content:
            yield from walk(item, depth=depth + 1)
    elif isinstance(content, bytes | bytearray | memoryview | Image.Image):
        yield _as_media(content)
    else:
        yield _refuse("unknown", f"A block is no text and no mapping: {type(content).__name__}.")


def replace_media(
    content: Any, change: Callable[[Media], Mapping[str, Any] | None], *, depth: int = 0
) -> Any:
    """Return content with some of its media blocks replaced, wrapped ones included.

    Args:
        content: ``message.content`` as it is; it is not changed.
        change: Returns the block that takes a medium's place, or None to leave it.
        depth: Levels of wrapping above this content.
    """
    if isinstance(content, list | tuple):
        return [replace_media(item, change, depth=depth + 1) for item in content]
    if not isinstance(content, Mapping) or depth > MAX_DEPTH:
        return content
    kind = content.get("type")
    media = list(_media(content, kind if isinstance(kind, str) else ""))
    if len(media) == 1 and isinstance(media[0], Media):
        changed = change(media[0])
        return content if changed is None else dict(changed)
    return {
        key: replace_media(value, change, depth=depth + 1) if key in _DESCENT_KEYS else value
        for key, value in content.items()
    }


def _walk_block(block: Mapping[Any, Any], depth: int) -> Iterator[Found]:
    kind = block.get("type")
    kind = kind if isinstance(kind, str) else ""
    nested = list(_nested(block, kind))
    media = list(_media(block, kind))
    yield from _texts(block, kind, depth)
    for inner in nested:
        yield from walk(inner, depth=depth + 1)
    if len(media) > 1:
        yield _refuse(kind or "image", "A block names more than one source for its media.")
    else:
        yield from media
    if not (nested or media or _is_known_text(block, kind)):
        yield _refuse(_label(kind), f"Blocks of type {_label(kind)!r} cannot be judged.")


def _is_known_text(block: Mapping[Any, Any], kind: str) -> bool:
    if kind == "file":
        return block.get("source_type") == "text"
    if kind:
        return kind in _TEXT_TYPES or kind in _SILENT_TYPES or kind in _EMPTY_TYPES
    return not _SILENT_KEYS.isdisjoint(block) or any(k in block for k in ("text", *_JSON_KEYS))


def _texts(block: Mapping[Any, Any], kind: str, depth: int) -> Iterator[Found]:
    is_text_file = kind == "file" and block.get("source_type") == "text"
    key = "text" if is_text_file or not kind else _TEXT_TYPES.get(kind)
    if key is not None:
        yield from walk(block.get(key), depth=depth + 1)
    if not kind:
        for key in _JSON_KEYS:
            if key in block:
                yield _as_json(block[key])
    source = block.get("source")
    if isinstance(source, Mapping) and source.get("type") == "text":
        yield from walk(source.get("data"), depth=depth + 1)


def _nested(block: Mapping[Any, Any], kind: str) -> Iterator[Any]:
    """Yield what a block wraps; `None` keeps the wrapper known although it is empty."""
    nests = kind in _NESTING_TYPES or kind.endswith(_NESTING_SUFFIXES)
    if nests and kind not in _SILENT_TYPES:
        yield from (block[key] for key in _NESTING_KEYS if key in block)
    for key in _WRAPPER_KEYS:
        inner = block.get(key)
        if isinstance(inner, Mapping) and any(k in inner for k in _NESTING_KEYS):
            yield from (inner[k] for k in _NESTING_KEYS if k in inner)
        elif inner is not None:
            yield inner
    source = block.get("source")
    if isinstance(source, Mapping) and source.get("type") in ("text", "content"):
        yield source.get("content")


def _media(block: Mapping[Any, Any], kind: str) -> Iterator[Media | Refused]:
    """Yield the block's own media; more than one means that the block is ambiguous."""
    mime = _mime(block)
    if kind in _OTHER_MEDIA and kind != "document":
        yield _refuse(kind, f"Media of type {kind!r} cannot be judged.")
        return
    for key in ("image_url", "image"):
        if block.get(key) is not None:
            yield _from_value(block[key])
    for value in _as_list(block.get("images")):
        yield _from_value(value)
    if block.get("base64") is not None:
        yield _from_data(block["base64"], mime, certain=kind in _IMAGE_TYPES)
    yield from _from_records(block, kind, mime)
    if kind in _IMAGE_TYPES or kind in _FILE_TYPES:
        yield from _from_typed(block, kind, mime)
    for key in sorted(_OTHER_MEDIA.intersection(k for k in block if isinstance(k, str))):
        if kind not in _SILENT_TYPES and block[key] is not None:
            yield _refuse(key, f"Media of type {key!r} cannot be judged.")


def _from_records(block: Mapping[Any, Any], kind: str, mime: str) -> Iterator[Media | Refused]:
    """Yield media under keys whose value is a record of its own."""
    source = block.get("source")
    if isinstance(source, Mapping) and source.get("type") not in ("text", "content"):
        yield _from_record(source, mime, certain=kind in _IMAGE_TYPES)
    for key in ("inline_data", "inlineData"):
        if block.get(key) is not None:
            yield _from_record(block[key], mime, certain=False)
    for key in ("file_data", "fileData"):
        value = block.get(key)
        if value is not None:
            yield (
                _from_url(value, mime, certain=False)
                if isinstance(value, str)
                else _from_record(value, mime, certain=False)
            )
    if kind and isinstance(block.get("file"), Mapping):
        record = {key: value for key, value in block["file"].items() if key != "file"}
        yield from _media(record, "file")


def _from_typed(block: Mapping[Any, Any], kind: str, mime: str) -> Iterator[Media | Refused]:
    """Yield media under keys that mean media only in a block of a media type."""
    certain = kind in _IMAGE_TYPES
    data_key = "result" if kind == "image_generation_call" else "data"
    if block.get(data_key) is not None:
        yield _from_data(block[data_key], mime, certain=certain)
    for key in ("url", "path", "file_uri", "fileUri", "file_url"):
        if block.get(key) is not None:
            yield _from_url(block[key], mime, certain=certain)
    is_file = block.get("file_id") or (block.get("source_type") == "id" and block.get("id"))
    if is_file:
        yield _forbidden_file("image" if certain else kind)


def _from_record(record: Any, mime: str, *, certain: bool) -> Media | Refused:
    """Read a source such as ``{type, media_type, data}``, ``{bytes}``, ``{url}``, ``{file_id}``."""
    if not isinstance(record, Mapping):
        return _refuse("image", "A source is no mapping.")
    mime = _mime(record) or mime
    given = [(k, record[k]) for k in _RECORD_KEYS if record.get(k) is not None]
    if len(given) != 1:
        how_many = "more than one place" if given else "no place"
        return _refuse("image", f"A source names {how_many} to find its bytes.")
    key, value = given[0]
    if key in ("data", "bytes"):
        return _from_data(value, mime, certain=certain)
    if key in ("url", "file_uri", "fileUri", "path"):
        return _from_url(value, mime, certain=certain)
    return _forbidden_file("image" if certain else "file")


_RECORD_KEYS: Final = (
    "data", "bytes", "url", "file_uri", "fileUri", "path", "file_id", "s3Location", "s3_location",
)  # fmt: skip


def _from_value(value: Any) -> Media | Refused:
    """Read what stands under ``image`` or ``image_url``."""
    if isinstance(value, str):
        return Media(Link(value))
    if isinstance(value, bytes | bytearray | memoryview | Image.Image):
        return _as_media(value)
    if isinstance(value, Mapping):
        inner = value.get("source")
        return _from_record(inner if isinstance(inner, Mapping) else value, "", certain=True)
    return _refuse("image", f"An image is given as {type(value).__name__}.")


def _from_data(value: Any, mime: str, *, certain: bool) -> Media | Refused:
    if not certain and not mime.startswith("image/"):
        return _not_an_image(mime)
    if isinstance(value, bytes | bytearray | memoryview | Image.Image):
        return _as_media(value)
    if isinstance(value, str):
        return Media(Encoded(value))
    return Refused("image", UnreadableImage(f"Image data is given as {type(value).__name__}."))


def _from_url(value: Any, mime: str, *, certain: bool) -> Media | Refused:
    if not isinstance(value, str):
        return Refused(
            "image",
            ForbiddenSource(
                f"An image is named by {type(value).__name__}.", hint="Send its bytes as base64."
            ),
        )
    if (
        not certain
        and not mime.startswith("image/")
        and value.lstrip()[:11].lower() != "data:image/"
    ):
        return _not_an_image(mime)
    return Media(Link(value))


def _as_media(value: bytes | bytearray | memoryview | Image.Image) -> Media:
    return Media(value if isinstance(value, Image.Image) else bytes(value))


def _as_json(value: Any) -> Text | Refused:
    try:
        return Text(json.dumps(value, default=str, skipkeys=True))
    except (ValueError, RecursionError):  # circular, or nested beyond reason
        return _refuse("json", "A tool's data cannot be written as JSON.")


def _mime(record: Mapping[Any, Any]) -> str:
    for key in ("mime_type", "media_type", "mimeType", "mediaType"):
        value = record.get(key)
        if isinstance(value, str):
            return value.strip().lower()
    return ""


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _label(kind: str) -> str:
    return kind[:40] or "unknown"


def _not_an_image(mime: str) -> Refused:
    return _refuse("file", f"A file of type {_label(mime)!r} is no image.")


def _forbidden_file(kind: str) -> Refused:
    error = ForbiddenSource(
        "A file is named by an id or a storage location, not sent.",
        hint="Send the image's bytes as base64.",
    )
    return Refused(kind, error)


def _refuse(kind: str, reason: str) -> Refused:
    hint = "Send images as base64 bytes with their mime type, and other media elsewhere."
    return Refused(_label(kind), UnsupportedMedia(reason, hint=hint))
