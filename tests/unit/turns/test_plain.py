"""A provider's own data is copied if it provably holds no media, and refused otherwise."""

from __future__ import annotations

import base64
import io
import json
from collections import UserDict
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from safecode_guard.errors import UnsupportedMedia
from safecode_guard.turns.plain import (
    MAX_LEVELS,
    plain_arguments,
    plain_references,
    plain_state,
)

PIXELS = Image.new("RGB", (8, 8))
FILE = io.BytesIO()
PIXELS.save(FILE, "PNG")
BASE64 = base64.b64encode(FILE.getvalue()).decode()
URL = f"data:image/png;base64,{BASE64}"

STATES: dict[str, Any] = {
    "thinking": {"type": "thinking", "thinking": "Data: see above.", "signature": "EqQB/9k="},
    "redacted thinking": {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"},
    "reasoning": {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "gAAAAB",
    },
    "tool use": {
        "type": "tool_use",
        "id": "t",
        "name": "open",
        "input": {"url": "https://e.org/a.png", "path": "/tmp/a.png", "image": "kitchen"},
    },
    "function call": {"function_call": {"name": "f", "arguments": '{"url": "https://e.org"}'}},
    "raw tool calls": {
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"path": "/tmp"}'}}]
    },
    "mcp tools": {
        "type": "mcp_list_tools",
        "tools": [{"name": "f", "input_schema": {"properties": {"image": {"type": "string"}}}}],
    },
    "drag": {"type": "computer_call", "action": {"type": "drag", "path": [{"x": 1, "y": 2}]}},
    "page": {"type": "web_search_call", "action": {"type": "open_page", "url": "https://e.org"}},
    "cited": {"type": "text", "annotations": [{"type": "url_citation", "url": "https://e.org"}]},
    "found": {"type": "file_search_call", "results": [{"file_id": "f", "text": "words"}]},
    "search results": {"search_results": [{"url": "https://e.org", "title": "t"}]},
    "search result": {"type": "web_search_result", "url": "https://e.org", "title": "t"},
    "fetched text": {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "words"},
    },
    "empty sources": {"image": None, "url": "", "images": [], "data": {}, "file_id": None},
    "numbers": {"image": 3, "path": 0.5, "blob": False},
    "signatures": {"__gemini_function_call_thought_signatures__": {"call_1": "CpsBAdHt"}},
}

MEDIA: dict[str, Any] = {
    "bytes": {"x": b"abc"},
    "bytearray": [bytearray(b"abc")],
    "memoryview": {"x": memoryview(b"abc")},
    "pixels": {"x": [PIXELS]},
    "an object": {"when": datetime(2026, 1, 1)},
    "a set": {"x": {1, 2}},
    "data url": {"x": URL},
    "data url in capitals": {"x": f"  DATA:image/png;base64,{BASE64}"},
    "data url of another kind": {"x": "data:application/octet-stream;base64,AAAA"},
    "data url inside text": {"x": f"see {URL} there"},
    "base64 of an image": {"signature": BASE64},
    "bytes as a key": {b"x": 1},
}

NAMED = (
    "image", "image_url", "imageUrl", "images", "inline_data", "inlineData", "file_data",
    "fileData", "source", "url", "uri", "file_id", "fileId", "path", "blob", "bytes", "data",
    "base64", "b64_json", "file", "document", "audio", "video", "input_audio", "s3Location",
)  # fmt: skip
FOLLOWED = ("image", "image_url", "inlineData", "file_data", "blob", "bytes", "data", "base64")


@pytest.mark.parametrize("name", STATES)
def test_state_of_providers_passes_unchanged(name: str) -> None:
    copy = plain_state(STATES[name])
    assert copy == STATES[name]
    assert copy is not STATES[name]


@pytest.mark.parametrize("name", MEDIA)
@pytest.mark.parametrize("copied", [plain_state, plain_references, plain_arguments])
def test_media_are_refused_wherever_they_stand(name: str, copied: Callable[[Any], Any]) -> None:
    for value in (MEDIA[name], {"input": MEDIA[name]}, {"a": [{"annotations": MEDIA[name]}]}):
        with pytest.raises(UnsupportedMedia) as caught:
            copied(value)
        assert caught.value.hint


@pytest.mark.parametrize("key", NAMED)
@pytest.mark.parametrize("value", ["abc", ["abc"], {"a": "b"}])
def test_names_of_sources_are_refused_in_state_and_free_in_arguments(key: str, value: Any) -> None:
    for state in ({key: value}, {"type": "reasoning", "more": [{key: value}]}):
        with pytest.raises(UnsupportedMedia, match="names a source of media"):
            plain_state(state)
        assert plain_arguments(state) == state
        assert plain_state({"args": state}) == {"args": state}


@pytest.mark.parametrize("key", FOLLOWED)
def test_a_reference_may_name_an_address_and_no_data(key: str) -> None:
    assert plain_references({"url": "https://e.org", "source": "a page"})
    for state in ({key: "abc"}, {"nested": {key: "abc"}}):
        with pytest.raises(UnsupportedMedia):
            plain_references(state)
        with pytest.raises(UnsupportedMedia):
            plain_state({"type": "computer_call", "action": state})


@pytest.mark.parametrize("kind", ["image", "input_image", "audio", "file", "image_generation_call"])
def test_a_block_that_is_media_by_its_type_is_refused(kind: str) -> None:
    with pytest.raises(UnsupportedMedia, match=kind):
        plain_state({"content": [{"type": kind, "id": "x_1"}]})
    assert plain_arguments({"type": kind})


def test_what_is_nested_beyond_reason_or_in_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = [endless]
    deep: Any = "words"
    for _ in range(MAX_LEVELS + 1):
        deep = [deep]
    for value in (endless, deep):
        with pytest.raises(UnsupportedMedia, match="deeper"):
            plain_state(value)
        with pytest.raises(RecursionError):
            plain_arguments(value)
    assert plain_state(deep[0])


def test_the_copy_is_made_of_plain_types() -> None:
    class Words(str):
        pass

    copy = plain_state(UserDict({"a": (Words("b"), 1)}))
    assert copy == {"a": ["b", 1]}
    assert type(copy) is dict
    assert type(copy["a"][0]) is str


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=10,
)
ANY = st.recursive(
    st.none() | st.integers() | st.text(max_size=9) | st.binary() | st.just(PIXELS) | st.just(URL),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*NAMED, "type", "input", "action"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(PLAIN)
@settings(max_examples=200)
def test_plain_data_is_copied_unchanged_or_refused(value: Any) -> None:
    assert plain_arguments(value) == value
    with suppress(UnsupportedMedia):
        assert plain_state(value) == value


@given(ANY)
@settings(max_examples=300)
def test_no_copy_holds_media(value: Any) -> None:
    for copied in (plain_state, plain_references, plain_arguments):
        try:
            written = json.dumps(copied(value))  # so there are neither bytes nor objects
        except UnsupportedMedia:
            continue
        assert "data:image" not in written
