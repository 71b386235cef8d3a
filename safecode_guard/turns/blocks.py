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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from safecode_guard.errors import UnsupportedMedia
from safecode_guard.turns.found import Found, Media, Opaque, Refused, Text, label, refuse, word
from safecode_guard.turns.media import IN_MEMORY, Block, in_memory, is_document, media_of
from safecode_guard.turns.plain import MAX_LEVELS, is_reference, plain_state

MAX_DEPTH: Final = 8
"""Levels of wrapping that are followed; real messages use three."""


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
        "type", "id", "call_id", "tool_use_id", "tool_call_id", "is_error", "status", "content",
        "output", "cache_control",
    }
)  # fmt: skip
_BARE_TEXT: Final = frozenset({"type", "text"})


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
        yield refuse("nested", f"Blocks are nested deeper than {MAX_DEPTH} levels.")
    elif isinstance(content, Mapping):
        yield from _walk_block(content, within) if within.depth else _walk_copy(content, within)
    elif isinstance(content, list | tuple):
        for item in content:
            yield from walk(item, within.deeper())
    elif isinstance(content, IN_MEMORY):
        yield in_memory(content)
    else:
        yield refuse("unknown", f"A block is no text and no mapping: {type(content).__name__}.")


def _read_once(value: Any, depth: int = 0) -> Any:
    """Return plain copies of a block and all in it: other classes could read differently twice."""
    if depth > MAX_LEVELS:
        raise RecursionError
    if isinstance(value, Mapping):
        return {key: _read_once(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_read_once(item, depth + 1) for item in value]
    return value


def _walk_copy(raw: Mapping[Any, Any], within: Within) -> Iterator[Found]:
    try:
        copy = _read_once(raw)
    except RecursionError:
        yield refuse("nested", f"Blocks are nested deeper than {MAX_LEVELS} levels.")
        return
    yield from _walk_block(copy, within)


def _walk_block(raw: Mapping[Any, Any], within: Within) -> Iterator[Found]:
    block = Block.of(raw)
    if _is_silent(block):
        yield _opaque(block)
        return
    found = list(_read(block, within))
    whole = _whole(block, found, within) if within.depth == 0 else None
    yield from found if whole is None else (whole,)


def _is_silent(block: Block) -> bool:
    if block.kind:
        return block.kind in _SILENT_TYPES or block.kind.endswith(_SILENT_SUFFIX)
    keys = block.raw.keys()
    said = ("text", *_JSON_KEYS, *_WRAPPER_KEYS)
    return not _SILENT_KEYS.isdisjoint(keys) and not any(key in keys for key in said)


def _opaque(block: Block) -> Opaque | Refused:
    try:
        state = plain_state(block.raw)
    except UnsupportedMedia as error:
        return Refused(label(block.kind), error)
    return Opaque(state, block.kind in _ANYWHERE or _ANYWHERE.issuperset(block.raw))


def _read(block: Block, within: Within, *, wrapper: str = "") -> Iterator[Found]:
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
    media = [] if said else media_of(block)
    reference = is_reference(block.kind) or wrapper == "searchResult"
    if refused := block.refused_rest(reference=reference):
        yield refused
        return
    yield from texts
    yield from nested
    if len(media) > 1:
        yield refuse(block.kind or "image", "A block names more than one source for its media.")
    else:
        yield from media
    if not (nests or said or texts or nested or media or _is_known(block.raw, block.kind)):
        named = label(block.kind)
        yield refuse(named, f"Blocks of type {named!r} cannot be judged.")


def _nests(kind: str) -> bool:
    return kind in _NESTING_TYPES or kind.endswith(_NESTING_SUFFIXES)


def _is_text_file(block: Block) -> bool:
    return block.kind == "file" and word(block.raw, "source_type") == "text"


def _is_known(raw: Mapping[Any, Any], kind: str) -> bool:
    """Return whether a block without content is of a form that may have none."""
    return not kind and any(key in raw for key in ("text", *_JSON_KEYS, *_WRAPPER_KEYS))


def _texts(block: Block, within: Within) -> Iterator[Found]:
    key = "text" if _is_text_file(block) or not block.kind else _TEXT_TYPES.get(block.kind)
    if key is not None:
        yield from walk(block.take(key), within.deeper())
    if block.kind in ("", "json"):
        for key in _JSON_KEYS:
            if key in block.raw:
                yield _as_json(block.take(key))


def _nested(block: Block, within: Within, *, nests: bool) -> Iterator[Found]:
    is_result = block.kind.endswith(_NESTING_SUFFIXES)
    for key in _NESTING_KEYS if nests else ():
        yield from walk(block.take(key), within.deeper(tool=is_result))
    for key in _WRAPPER_KEYS:
        inner, below = block.take(key), within.deeper(tool=key in _TOOL_WRAPPERS)
        if isinstance(inner, Mapping) and not word(inner, "type"):
            yield from _read_wrapped(inner, key, below)
        else:
            yield from walk(inner, below)
    source = block.raw.get("source")
    if isinstance(source, Mapping) and is_document(source):
        yield from _read_document(Block(block.take("source"), "source"), within.deeper())


def _read_wrapped(inner: Mapping[Any, Any], key: str, within: Within) -> Iterator[Found]:
    if within.depth > MAX_DEPTH:
        yield refuse("nested", f"Blocks are nested deeper than {MAX_DEPTH} levels.")
        return
    yield from _read(Block.of(inner), within, wrapper=key)


def _read_document(source: Block, within: Within) -> Iterator[Found]:
    """Yield what stands in a document that is made of text or of blocks."""
    found = [*walk(source.take("data"), within), *walk(source.take("content"), within)]
    source.take("media_type")
    refused = source.refused_rest()
    yield from (refused,) if refused else found


def _whole(block: Block, found: Iterable[Found], within: Within) -> Text | Opaque | None:
    """Return a block as one piece that is handed back as it came, if it provably holds no media.

    Providers refuse a call without its result and reasoning without the text that follows it, by
    ids, so that these must not be lost.
    """
    if not (_has_state(block) if within.assistant else _is_read_to_the_last_word(block)):
        return None
    if any(isinstance(piece, Media) or _is_typed_refusal(piece) for piece in found):
        return None
    try:
        state = plain_state(block.raw)
    except UnsupportedMedia:
        return None
    text = "".join(piece.text for piece in found if isinstance(piece, Text))
    is_result = _nests(block.kind)
    return Text(text, is_result or within.tool, state) if text else Opaque(state)


def _has_state(block: Block) -> bool:
    """Return whether a block of an assistant's has something to it that its text does not say."""
    if block.kind in _TEXT_TYPES:
        return not _BARE_TEXT.issuperset(block.raw)
    return _nests(block.kind)


def _is_read_to_the_last_word(block: Block) -> bool:
    """Return whether all that a block says is text, and the rest of it marks and ids."""
    if block.kind == "text":
        return block.raw.keys() == _BARE_TEXT | {"cache_control"}
    return _nests(block.kind) and _is_simple_result(block.raw)


def _is_typed_refusal(piece: Found) -> bool:
    """Return whether a piece was refused for more than being a mapping that is no block."""
    return isinstance(piece, Refused) and piece.kind != label("")


def _is_simple_result(raw: Mapping[Any, Any]) -> bool:
    said = [raw[key] for key in ("content", "output") if raw.get(key) is not None]
    return _RESULT_KEYS.issuperset(raw) and all(map(_is_only_text, said))


def _is_only_text(content: Any) -> bool:
    if isinstance(content, list):
        return all(
            isinstance(item, Mapping)
            and item.keys() == {"type", "text"}
            and word(item, "type") == "text"
            and isinstance(item["text"], str)
            for item in content
        )
    return isinstance(content, str)


def _as_json(value: Any) -> Text | Refused:
    """Return a tool's data as the text that a model reads."""
    try:
        return Text(json.dumps(value), from_tool=True)
    except (TypeError, ValueError, RecursionError):  # objects, circular, nested beyond reason
        return refuse("json", "A tool's data cannot be written as JSON.")
