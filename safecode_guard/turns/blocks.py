"""Finds the text and the media in a message's raw content, in every provider's block form.

Nothing is decoded, opened or fetched here: a medium is yielded with the place where its bytes
are, and whatever this module does not recognise is yielded as refused. A block is never dropped
because it is unknown, and of a block that is known every key is accounted for: it is text, holds
blocks, names the one medium, or provably holds none. Forms that are read: LangChain v1 and v0,
OpenAI (chat and responses), Anthropic, Bedrock Converse, Gemini, Hugging Face, and any of them
wrapped in ``non_standard`` or nested in tool results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from PIL import Image

from safecode_guard.errors import ForbiddenSource, ImageError, UnreadableImage, UnsupportedMedia
from safecode_guard.turns.plain import is_reference, plain_references, plain_state

MAX_DEPTH: Final = 8
"""Levels of wrapping that are followed; real messages use three."""


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


@dataclass(frozen=True)
class Within:
    """Where a piece of content stands."""

    depth: int = 0
    """Levels of wrapping above it."""
    tool: bool = False
    """In what a tool returned."""
    assistant: bool = False
    """In an assistant's message, where a provider keeps its own state."""

    def deeper(self, *, tool: bool = False) -> Within:
        """Return the place one level down."""
        return replace(self, depth=self.depth + 1, tool=self.tool or tool)


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

# Types that hold no media and no text which a judge is shown.
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
_SILENT_SUFFIX: Final = "_result_error"
# Of the silent ones, those that are sent in messages of every role.
_ANYWHERE: Final = frozenset({"cachePoint", "cache_point", "tool_reference"})

# Types that hold other blocks; so does every type that ends in one of the suffixes.
_NESTING_TYPES: Final = frozenset({"non_standard", "message", "code_interpreter_call"})
_NESTING_SUFFIXES: Final = ("_result", "_output", "_response")
_NESTING_KEYS: Final = ("value", "content", "output", "outputs", "stdout", "stderr", "parts")

# Keys of blocks without a type (Bedrock Converse, Gemini) which hold other blocks...
_WRAPPER_KEYS: Final = (
    "toolResult", "tool_result", "guardContent", "guard_content", "searchResult",
    "citationsContent", "function_response", "functionResponse",
)  # fmt: skip
_TOOL_WRAPPERS: Final = frozenset(
    {"toolResult", "tool_result", "function_response", "functionResponse"}
)
# ...which hold data that the model reads as JSON text...
_JSON_KEYS: Final = ("json", "response")
# ...and which hold nothing that a judge is shown.
_SILENT_KEYS: Final = frozenset(
    {
        "toolUse", "reasoningContent", "cachePoint", "cache_point", "cache_control",
        "function_call", "functionCall", "executable_code", "executableCode", "thought",
    }
)  # fmt: skip

# What a result may hold besides its text to be handed back as it came in any message.
_RESULT_KEYS: Final = frozenset(
    {
        "type", "id", "call_id", "tool_use_id", "tool_call_id", "is_error", "status", "name",
        "content", "output", "cache_control",
    }
)  # fmt: skip

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

_RECORD_KEYS: Final = (
    "data", "bytes", "base64", "url", "file_uri", "fileUri", "path", "file_id", "s3Location",
    "s3_location",
)  # fmt: skip


def walk(content: Any, within: Within = Within()) -> Iterator[Found]:
    """Yield the text and the media of a message's content, in order.

    Args:
        content: ``message.content`` as it is: text, a block, or a list of either.
        within: Where it stands.
    """
    if content is None:
        return
    if isinstance(content, str):
        if content:
            yield Text(str.__str__(content), within.tool)
    elif within.depth > MAX_DEPTH:
        yield _refuse("nested", f"Blocks are nested deeper than {MAX_DEPTH} levels.")
    elif isinstance(content, Mapping):
        yield from _walk_block(content, within)
    elif isinstance(content, list | tuple):
        for item in content:
            yield from walk(item, within.deeper())
    elif isinstance(content, _IN_MEMORY):
        yield _as_media(content)
    else:
        yield _refuse("unknown", f"A block is no text and no mapping: {type(content).__name__}.")


def own_media(block: Mapping[Any, Any]) -> list[Media | Refused]:
    """Return the media of a block itself, without those of the blocks that it holds."""
    return list(_media(_Block.of(block)))


class _Block:
    """A block, and which of its keys have been read."""

    def __init__(self, raw: Mapping[Any, Any], kind: str) -> None:
        self.raw, self.kind = raw, kind
        self._read = {"type"}

    @classmethod
    def of(cls, raw: Mapping[Any, Any], kind: str | None = None) -> _Block:
        given = raw.get("type")
        return cls(raw, kind if kind is not None else given if isinstance(given, str) else "")

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
            return Refused(_label(self.kind), error)
        return None


def _walk_block(raw: Mapping[Any, Any], within: Within) -> Iterator[Found]:
    block = _Block.of(raw)
    if _is_silent(block):
        yield _opaque(block)
        return
    found = list(_read(block, within))
    whole = _whole(block, found, within) if within.depth == 0 else None
    yield from found if whole is None else (whole,)


def _is_silent(block: _Block) -> bool:
    if block.kind:
        return block.kind in _SILENT_TYPES or block.kind.endswith(_SILENT_SUFFIX)
    keys = block.raw.keys()
    said = ("text", *_JSON_KEYS, *_WRAPPER_KEYS)
    return not _SILENT_KEYS.isdisjoint(keys) and not any(key in keys for key in said)


def _opaque(block: _Block) -> Opaque | Refused:
    try:
        state = plain_state(block.raw)
    except UnsupportedMedia as error:
        return Refused(_label(block.kind), error)
    return Opaque(state, block.kind in _ANYWHERE or _ANYWHERE.issuperset(block.raw))


def _read(block: _Block, within: Within, *, wrapper: str = "") -> Iterator[Found]:
    """Yield what a block says and holds, or its refusal alone where a key is unaccounted for.

    Args:
        block: The block.
        within: Where it stands.
        wrapper: The key under which a wrapper holds this record, which then nests others itself.
    """
    nests = bool(wrapper) or _nests(block.kind)
    said = block.kind in _TEXT_TYPES or _is_text_file(block)
    texts = list(_texts(block, within))
    nested = [] if said else list(_nested(block, within, nests=nests))
    media = [] if said else list(_media(block))
    reference = is_reference(block.kind) or wrapper == "searchResult"
    if refused := block.refused_rest(reference=reference):
        yield refused
        return
    yield from texts
    yield from nested
    if len(media) > 1:
        yield _refuse(block.kind or "image", "A block names more than one source for its media.")
    else:
        yield from media
    if not (nests or said or texts or nested or media or _is_known(block.raw, block.kind)):
        label = _label(block.kind)
        yield _refuse(label, f"Blocks of type {label!r} cannot be judged.")


def _nests(kind: str) -> bool:
    return kind in _NESTING_TYPES or kind.endswith(_NESTING_SUFFIXES)


def _is_text_file(block: _Block) -> bool:
    return block.kind == "file" and block.raw.get("source_type") == "text"


def _is_known(raw: Mapping[Any, Any], kind: str) -> bool:
    """Return whether a block without content is of a form that may have none."""
    return not kind and any(key in raw for key in ("text", *_JSON_KEYS, *_WRAPPER_KEYS))


def _texts(block: _Block, within: Within) -> Iterator[Found]:
    key = "text" if _is_text_file(block) or not block.kind else _TEXT_TYPES.get(block.kind)
    if key is not None:
        yield from walk(block.take(key), within.deeper())
    if not block.kind:
        for key in _JSON_KEYS:
            if key in block.raw:
                yield _as_json(block.take(key))


def _nested(block: _Block, within: Within, *, nests: bool) -> Iterator[Found]:
    is_result = block.kind.endswith(_NESTING_SUFFIXES)
    for key in _NESTING_KEYS if nests else ():
        yield from walk(block.take(key), within.deeper(tool=is_result))
    for key in _WRAPPER_KEYS:
        inner, below = block.take(key), within.deeper(tool=key in _TOOL_WRAPPERS)
        if isinstance(inner, Mapping) and not isinstance(inner.get("type"), str):
            yield from _read_wrapped(inner, key, below)
        else:
            yield from walk(inner, below)
    source = block.raw.get("source")
    if isinstance(source, Mapping) and source.get("type") in ("text", "content"):
        yield from _read_document(_Block.of(block.take("source"), "source"), within.deeper())


def _read_wrapped(inner: Mapping[Any, Any], key: str, within: Within) -> Iterator[Found]:
    if within.depth > MAX_DEPTH:
        yield _refuse("nested", f"Blocks are nested deeper than {MAX_DEPTH} levels.")
        return
    yield from _read(_Block.of(inner), within, wrapper=key)


def _read_document(source: _Block, within: Within) -> Iterator[Found]:
    """Yield what stands in a document that is made of text or of blocks."""
    found = [*walk(source.take("data"), within), *walk(source.take("content"), within)]
    source.take("media_type")
    refused = source.refused_rest()
    yield from (refused,) if refused else found


def _whole(block: _Block, found: Iterable[Found], within: Within) -> Text | Opaque | None:
    """Return a result as one piece that is handed back as it came, if it provably holds no media.

    Providers refuse a call without its result, so that the wrapper must not be lost. Whatever is
    handed back to others than a provider's own assistant must have been read to the last word.
    """
    if not _nests(block.kind) or not (within.assistant or _is_simple_result(block.raw)):
        return None
    if any(isinstance(piece, Media) or _is_typed_refusal(piece) for piece in found):
        return None
    try:
        state = plain_state(block.raw)
    except UnsupportedMedia:
        return None
    text = "".join(piece.text for piece in found if isinstance(piece, Text))
    return Text(text, from_tool=True, block=state) if text else Opaque(state)


def _is_typed_refusal(piece: Found) -> bool:
    """Return whether a piece was refused for more than being a mapping that is no block."""
    return isinstance(piece, Refused) and piece.kind != _label("")


def _is_simple_result(raw: Mapping[Any, Any]) -> bool:
    said = [raw[key] for key in ("content", "output") if raw.get(key) is not None]
    return _RESULT_KEYS.issuperset(raw) and all(map(_is_only_text, said))


def _is_only_text(content: Any) -> bool:
    if isinstance(content, list):
        return all(
            isinstance(item, Mapping)
            and item.keys() == {"type", "text"}
            and item["type"] == "text"
            and isinstance(item["text"], str)
            for item in content
        )
    return isinstance(content, str)


def _media(block: _Block) -> Iterator[Media | Refused]:
    """Yield the block's own media; more than one means that the block is ambiguous."""
    mime, kind = _mime(block.raw), block.kind
    certain = kind in _IMAGE_TYPES
    if kind in _OTHER_MEDIA and kind != "document":
        yield _refuse(kind, f"Media of type {kind!r} cannot be judged.")
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
    for key in sorted(_OTHER_MEDIA):
        if (value := block.take(key)) is not None:
            yield _refuse(key, f"Media of type {key!r} cannot be judged.")


def _from_records(block: _Block, mime: str) -> Iterator[Media | Refused]:
    """Yield media under keys whose value is a record of its own."""
    source = block.raw.get("source")
    if isinstance(source, Mapping) and source.get("type") not in ("text", "content"):
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
    inner = _Block.of({key: value for key, value in record.items() if key != "type"}, "file")
    media = [] if isinstance(record.get("file"), Mapping) else list(_media(inner))
    refused = inner.refused_rest()
    yield from (refused,) if refused else media


def _from_typed(block: _Block, mime: str) -> Iterator[Media | Refused]:
    """Yield media under keys that mean media only in a block of a media type."""
    certain = block.kind in _IMAGE_TYPES
    data_key = "result" if block.kind == "image_generation_call" else "data"
    if (value := block.take(data_key)) is not None:
        yield _from_data(value, mime, certain=certain)
    for key in ("url", "path", "file_uri", "fileUri", "file_url"):
        if (value := block.take(key)) is not None:
            yield _from_url(value, mime, certain=certain)
    ids = [block.take("file_id")]
    if block.raw.get("source_type") == "id":
        ids.append(block.take("id"))
    if any(_is_given(each) for each in ids):
        yield _forbidden_file("image" if certain else block.kind)


def _is_given(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value)


def _from_record(record: Any, mime: str, *, certain: bool) -> Media | Refused:
    """Read a source such as ``{type, media_type, data}``, ``{bytes}``, ``{url}``, ``{file_id}``."""
    if not isinstance(record, Mapping):
        return _refuse("image", "A source is no mapping.")
    block = _Block.of(record, "image")
    mime = _mime(record) or mime
    given = [(key, value) for key in _RECORD_KEYS if (value := block.take(key)) is not None]
    if refused := block.refused_rest():
        return refused
    if len(given) != 1:
        how_many = "more than one place" if given else "no place"
        return _refuse("image", f"A source names {how_many} to find its bytes.")
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
    if isinstance(value, _IN_MEMORY):
        return _as_media(value)
    if not isinstance(value, Mapping):
        return _refuse("image", f"An image is given as {type(value).__name__}.")
    if not isinstance(value.get("source"), Mapping):
        return _from_record(value, "", certain=True)
    outer = _Block.of(value, "image")
    media = _from_record(outer.take("source"), "", certain=True)
    return outer.refused_rest() or media


def _from_data(value: Any, mime: str, *, certain: bool) -> Media | Refused:
    if not certain and not mime.startswith("image/"):
        return _not_an_image(mime)
    if isinstance(value, _IN_MEMORY):
        return _as_media(value)
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


_IN_MEMORY: Final = bytes | bytearray | memoryview | Image.Image


def _as_media(value: bytes | bytearray | memoryview | Image.Image) -> Media:
    return Media(value if isinstance(value, Image.Image) else bytes(value))


def _as_json(value: Any) -> Text | Refused:
    """Return a tool's data as the text that a model reads."""
    try:
        return Text(json.dumps(value), from_tool=True)
    except (TypeError, ValueError, RecursionError):  # objects, circular, nested beyond reason
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
    """Return a type as a plain word: it comes from a message and ends up in verdicts."""
    return _NO_WORD.sub("_", kind[:40]) or "unknown"


_NO_WORD: Final = re.compile(r"[^\w+-]")


def _not_an_image(mime: str) -> Refused:
    named = "/".join(map(_label, mime.split("/", 1)))
    return _refuse("file", f"A file of type {named!r} is no image.")


def _forbidden_file(kind: str) -> Refused:
    error = ForbiddenSource(
        "A file is named by an id or a storage location, not sent.",
        hint="Send the image's bytes as base64.",
    )
    return Refused(_label(kind), error)


def _refuse(kind: str, reason: str) -> Refused:
    hint = "Send images as base64 bytes with their mime type, and other media elsewhere."
    return Refused(_label(kind), UnsupportedMedia(reason, hint=hint))
