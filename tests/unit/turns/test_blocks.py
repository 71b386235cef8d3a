"""Every form in which a provider sends an image must reach the checks, and nothing may vanish."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from PIL import Image, ImageChops

from safecode_guard.turns.blocks import MAX_DEPTH, walk
from safecode_guard.turns.found import Media, Opaque, Refused, Text
from safecode_guard.turns.reading import read_turn

Form = Callable[[bytes, str], Any]

FORMS: dict[str, Form] = {
    "v1": lambda d, b: {"type": "image", "base64": b, "mime_type": "image/png"},
    "v1 without mime": lambda d, b: {"type": "image", "base64": b},
    "v1 with a wrong mime": lambda d, b: {"type": "image", "base64": b, "mime_type": "text/html"},
    "v1 data url": lambda d, b: {"type": "image", "url": f"data:image/png;base64,{b}"},
    "v0 data": lambda d, b: {
        "type": "image",
        "source_type": "base64",
        "data": b,
        "mime_type": "image/png",
    },
    "v0 url": lambda d, b: {
        "type": "image",
        "source_type": "url",
        "url": f"data:image/png;base64,{b}",
    },
    "openai": lambda d, b: {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{b}", "detail": "low"},
    },
    "openai plain string": lambda d, b: {
        "type": "image_url",
        "image_url": f"data:image/png;base64,{b}",
    },
    "openai with extra keys": lambda d, b: {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{b}"},
        "cache_control": {"type": "ephemeral"},
    },
    "image_url without a type": lambda d, b: {
        "image_url": {"url": f"data:image/png;base64,{b}"},
    },
    "openai input_image": lambda d, b: {
        "type": "input_image",
        "image_url": f"data:image/png;base64,{b}",
        "file_id": None,
    },
    "openai image_generation_call": lambda d, b: {
        "type": "image_generation_call",
        "id": "ig_1",
        "status": "completed",
        "result": b,
    },
    "openai computer_call_output": lambda d, b: {
        "type": "computer_call_output",
        "call_id": "c",
        "output": {"type": "computer_screenshot", "image_url": f"data:image/png;base64,{b}"},
    },
    "openai code_interpreter_call": lambda d, b: {
        "type": "code_interpreter_call",
        "code": "plot()",
        "outputs": [{"type": "image", "url": f"data:image/png;base64,{b}"}],
    },
    "openai file": lambda d, b: {
        "type": "file",
        "file": {"filename": "a.png", "file_data": f"data:image/png;base64,{b}"},
    },
    "openai input_file": lambda d, b: {
        "type": "input_file",
        "filename": "a.png",
        "file_data": f"data:image/png;base64,{b}",
    },
    "anthropic": lambda d, b: {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": b},
    },
    "anthropic url": lambda d, b: {
        "type": "image",
        "source": {"type": "url", "url": f"data:image/png;base64,{b}"},
    },
    "anthropic tool_result": lambda d, b: {
        "type": "tool_result",
        "tool_use_id": "t",
        "content": [
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": b},
            }
        ],
    },
    "anthropic document of blocks": lambda d, b: {
        "type": "document",
        "source": {
            "type": "content",
            "content": [
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": b},
                }
            ],
        },
    },
    "bedrock bytes": lambda d, b: {"image": {"format": "png", "source": {"bytes": d}}},
    "bedrock base64": lambda d, b: {"image": {"format": "png", "source": {"bytes": b}}},
    "bedrock guardContent": lambda d, b: {
        "guardContent": {"image": {"format": "png", "source": {"bytes": d}}}
    },
    "bedrock toolResult": lambda d, b: {
        "toolResult": {
            "toolUseId": "t",
            "content": [{"image": {"format": "png", "source": {"bytes": d}}}],
        }
    },
    "genai inline_data": lambda d, b: {"inline_data": {"mime_type": "image/png", "data": b}},
    "genai inlineData": lambda d, b: {"inlineData": {"mimeType": "image/png", "data": d}},
    "genai media": lambda d, b: {"type": "media", "mime_type": "image/png", "data": b},
    "genai function_response": lambda d, b: {
        "function_response": {
            "name": "shot",
            "response": {},
            "parts": [{"inline_data": {"mime_type": "image/png", "data": b}}],
        }
    },
    "file block": lambda d, b: {"type": "file", "base64": b, "mime_type": "image/png"},
    "file block v0": lambda d, b: {
        "type": "file",
        "source_type": "base64",
        "data": b,
        "mime_type": "image/png",
    },
    "bytes": lambda d, b: {"type": "image", "image": d},
    "bytearray as data": lambda d, b: {"type": "image", "data": bytearray(d)},
    "hugging face string": lambda d, b: {
        "type": "image",
        "image": f"data:image/png;base64,{b}",
        "text": None,
    },
    "hugging face record": lambda d, b: {"type": "image", "image": {"bytes": d, "path": None}},
    "list of images": lambda d, b: {"type": "image", "images": [d]},
    "non_standard": lambda d, b: {
        "type": "non_standard",
        "value": {"inline_data": {"mime_type": "image/png", "data": b}},
    },
    "non_standard in a tool result in a server result": lambda d, b: {
        "type": "server_tool_result",
        "output": [
            {
                "type": "tool_result",
                "content": [
                    {"type": "non_standard", "value": {"type": "image", "base64": b}},
                ],
            }
        ],
    },
    "data url with parameters": lambda d, b: {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;charset=utf-8;name=a;base64,{b}"},
    },
    "data url without a mime": lambda d, b: {
        "type": "image_url",
        "image_url": {"url": f"data:;base64,{b}"},
    },
    "data url in capitals": lambda d, b: {
        "type": "image_url",
        "image_url": {"url": f" DATA:IMAGE/PNG;BASE64,{b}\n"},
    },
    "percent-encoded base64": lambda d, b: {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{quote(b, safe='')}"},
    },
    "percent-encoded bytes": lambda d, b: {
        "type": "image_url",
        "image_url": {"url": f"data:image/png,{quote(d)}"},
    },
    "base64 with line breaks": lambda d, b: {
        "type": "image",
        "base64": base64.encodebytes(d).decode(),
    },
    "url-safe base64": lambda d, b: {
        "type": "image",
        "base64": base64.urlsafe_b64encode(d).decode(),
    },
}

PIXEL_FORMS: dict[str, Form] = {
    "pil": lambda d, b: {"type": "image", "image": Image.open(io.BytesIO(d))},
    "bare pil in image_url": lambda d, b: {
        "type": "image_url",
        "image_url": Image.open(io.BytesIO(d)),
    },
}

REFUSED: dict[str, tuple[Any, str]] = {
    "audio": ({"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}, "UnsupportedMedia"),
    "video": ({"type": "video", "url": "https://e.org/v.mp4"}, "UnsupportedMedia"),
    "input_audio": ({"type": "input_audio", "input_audio": {"data": "AA=="}}, "UnsupportedMedia"),
    "video_url": ({"type": "video_url", "video_url": {"url": "https://e"}}, "UnsupportedMedia"),
    "pdf": (
        {"type": "file", "base64": "AAAA", "mime_type": "application/pdf"},
        "UnsupportedMedia",
    ),
    "file of unknown type": ({"type": "file", "base64": "AAAA"}, "UnsupportedMedia"),
    "anthropic pdf": (
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
        },
        "UnsupportedMedia",
    ),
    "bedrock document": (
        {"document": {"format": "pdf", "name": "a", "source": {"bytes": b"x"}}},
        "UnsupportedMedia",
    ),
    "bedrock video": (
        {"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://a"}}}},
        "UnsupportedMedia",
    ),
    "genai video": (
        {"file_data": {"mime_type": "video/mp4", "file_uri": "https://y"}},
        "UnsupportedMedia",
    ),
    "unknown type": ({"type": "hologram", "value": 1}, "UnsupportedMedia"),
    "unknown keys": ({"blob": "AAAA"}, "UnsupportedMedia"),
    "empty mapping": ({}, "UnsupportedMedia"),
    "image without data": ({"type": "image"}, "UnsupportedMedia"),
    "unfinished image_generation_call": (
        {"type": "image_generation_call", "result": None},
        "UnsupportedMedia",
    ),
    "file id": ({"type": "image", "file_id": "file-1"}, "ForbiddenSource"),
    "v0 id": ({"type": "image", "source_type": "id", "id": "file-1"}, "ForbiddenSource"),
    "input_image id": ({"type": "input_image", "file_id": "file-1"}, "ForbiddenSource"),
    "anthropic file": (
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
        "ForbiddenSource",
    ),
    "openai file id": ({"type": "file", "file": {"file_id": "f"}}, "ForbiddenSource"),
    "s3": (
        {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/k"}}}},
        "ForbiddenSource",
    ),
    "gemini file uri": (
        {"type": "media", "mime_type": "image/png", "file_uri": "gs://b/k"},
        "ForbiddenSource",
    ),
    "path": ({"type": "image", "path": "/etc/passwd"}, "ForbiddenSource"),
    "path in url": ({"type": "image", "url": "/etc/passwd"}, "ForbiddenSource"),
    "relative path": ({"type": "image", "image": "../secret.png"}, "ForbiddenSource"),
    "file url": (
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        "ForbiddenSource",
    ),
    "file url in capitals": ({"type": "image", "url": "FILE://C:/a.png"}, "ForbiddenSource"),
    "unc": ({"type": "image", "url": "\\\\host\\share\\a.png"}, "ForbiddenSource"),
    "windows path": ({"type": "image", "url": "C:\\a.png"}, "ForbiddenSource"),
    "scheme-less url": ({"type": "image", "url": "//host/a.png"}, "ForbiddenSource"),
    "https": ({"type": "image", "url": "https://example.org/a.png"}, "ForbiddenSource"),
    "http": ({"type": "image_url", "image_url": "http://example.org/a.png"}, "ForbiddenSource"),
    "ftp": ({"type": "image", "url": "ftp://example.org/a.png"}, "ForbiddenSource"),
    "record with a path": (
        {"type": "image", "image": {"bytes": None, "path": "/a"}},
        "ForbiddenSource",
    ),
    "path object": ({"type": "image", "url": io.BytesIO(b"x")}, "ForbiddenSource"),
    "malformed base64": ({"type": "image", "base64": "@@not base64@@"}, "UnreadableImage"),
    "base64 without padding": ({"type": "image", "base64": "iVBORw0KGgo"}, "UnreadableImage"),
    "base64 after its padding": ({"type": "image", "base64": "QQ==QQ=="}, "UnreadableImage"),
    "base64 in other letters": ({"type": "image", "base64": "ÄÖÜ="}, "UnreadableImage"),
    "empty base64": ({"type": "image", "base64": ""}, "UnreadableImage"),
    "data that is no text": ({"type": "image", "base64": 7}, "UnreadableImage"),
    "data url without payload": ({"type": "image", "url": "data:image/png"}, "UnreadableImage"),
    "svg": ({"type": "image", "url": "data:image/svg+xml,<svg/>"}, "UnreadableImage"),
    "two sources": (
        {"type": "image", "base64": "AAAA", "url": "https://example.org/a.png"},
        "UnsupportedMedia",
    ),
    "two places in a source": (
        {"type": "image", "source": {"type": "base64", "data": "AAAA", "url": "https://e"}},
        "UnsupportedMedia",
    ),
    "a number as a url": ({"type": "image_url", "image_url": 7}, "UnsupportedMedia"),
}

SILENT: dict[str, Any] = {
    "reasoning": {"type": "reasoning", "reasoning": "hm", "extras": {"signature": "x"}},
    "thinking": {"type": "thinking", "thinking": "hm", "signature": "x"},
    "redacted": {"type": "redacted_thinking", "data": "AAAA"},
    "tool_use": {"type": "tool_use", "id": "t", "name": "f", "input": {"url": "x"}},
    "tool_call": {"type": "tool_call", "id": "t", "name": "f", "args": {}},
    "function_call": {"type": "function_call", "name": "f", "arguments": "{}"},
    "citation": {"type": "citation", "url": "https://example.org", "title": "t"},
    "cachePoint": {"cachePoint": {"type": "default"}},
    "bedrock toolUse": {"toolUse": {"toolUseId": "t", "name": "f", "input": {}}},
    "empty tool_result": {"type": "tool_result", "tool_use_id": "t"},
    "web search": {
        "type": "web_search_tool_result",
        "content": [{"type": "web_search_result", "url": "https://e", "encrypted_content": "x"}],
    },
}

TEXTS: dict[str, Any] = {
    "text": {"type": "text", "text": "words", "image": None},
    "no type": {"text": "words"},
    "input_text": {"type": "input_text", "text": "words"},
    "refusal": {"type": "refusal", "refusal": "words"},
    "text-plain": {"type": "text-plain", "text": "words", "mime_type": "text/plain"},
    "v0 text file": {"type": "file", "source_type": "text", "text": "words"},
    "anthropic text document": {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "words"},
    },
    "tool_result": {"type": "tool_result", "content": [{"type": "text", "text": "words"}]},
    "tool_result as a string": {"type": "tool_result", "content": "words"},
    "guardContent": {"guardContent": {"text": {"text": "words"}}},
    "search_result": {
        "type": "search_result",
        "source": "https://e",
        "content": [{"type": "text", "text": "words"}],
    },
}


@pytest.fixture(scope="module")
def png() -> bytes:
    noise = Image.effect_noise((16, 12), 90).convert("RGB")
    file = io.BytesIO()
    noise.save(file, "PNG")
    data = file.getvalue()
    assert set("+/") & set(base64.b64encode(data).decode())  # so that the URL-safe form differs
    return data


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_bytes_and_pixels(form: str, png: bytes) -> None:
    block = FORMS[form](png, base64.b64encode(png).decode())
    turn = read_turn([HumanMessage([block])], strict=True)
    plain = read_turn([HumanMessage([{"type": "image", "image": png}])]).images[0]
    assert len(turn.images) == 1
    assert turn.images[0].sha256 == plain.sha256
    assert turn.images[0].mime == "image/png"
    assert ImageChops.difference(turn.images[0].pixels, plain.pixels).getbbox() is None


@pytest.mark.parametrize("form", PIXEL_FORMS)
def test_pixels_handed_over_are_identified_by_their_ppm(form: str, png: bytes) -> None:
    one, two = (
        read_turn([HumanMessage([PIXEL_FORMS[form](png, "")])], strict=True).images[0]
        for _ in range(2)
    )
    plain = read_turn([HumanMessage([{"type": "image", "image": png}])]).images[0]
    ppm = io.BytesIO()
    plain.pixels.save(ppm, "PPM")
    as_file = read_turn([HumanMessage([{"type": "image", "image": plain.pixels}])]).images[0]
    assert one.sha256 == two.sha256 == as_file.sha256
    assert one.sha256 == hashlib.sha256(ppm.getvalue()).hexdigest()
    assert ImageChops.difference(one.pixels, plain.pixels).getbbox() is None


@pytest.mark.parametrize("form", FORMS)
def test_an_image_in_an_anthropic_answer_is_seen(form: str, png: bytes) -> None:
    block = FORMS[form](png, base64.b64encode(png).decode())
    answer = AIMessage([block], response_metadata={"model_provider": "anthropic"})
    assert len(read_turn([HumanMessage("Draw."), answer]).images) == 1


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_judged_is_listed_with_its_reason(name: str) -> None:
    block, error = REFUSED[name]
    turn = read_turn([HumanMessage("Hello"), HumanMessage([{"type": "text", "text": "x"}, block])])
    assert not turn.images
    (skipped,) = turn.skipped
    assert (skipped.message_index, skipped.block_index) == (1, 1)
    assert skipped.reason.startswith(error + ": ")
    assert "/etc/passwd" not in skipped.reason


@pytest.mark.parametrize("name", SILENT)
def test_blocks_without_media_are_not_refused(name: str) -> None:
    turn = read_turn([HumanMessage([SILENT[name]])])
    assert not turn.skipped
    assert not turn.images
    assert not turn.messages[0].text


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_kept(name: str) -> None:
    turn = read_turn([HumanMessage([TEXTS[name]])])
    assert turn.messages[0].text == "words"
    assert not turn.skipped


@pytest.mark.parametrize(
    "block",
    [
        {"toolResult": {"toolUseId": "t", "content": [{"json": {"speed": 3}}]}},
        {"functionResponse": {"name": "f", "response": {"speed": 3}}},
        {"type": "json", "json": {"speed": 3}},
    ],
)
def test_data_of_tools_is_kept_as_json(block: dict[str, Any]) -> None:
    assert json.loads(read_turn([HumanMessage([block])]).messages[0].text) == {"speed": 3}


def test_what_stands_deeper_than_the_limit_is_refused_not_dropped(png: bytes) -> None:
    def wrap(times: int) -> dict[str, Any]:
        block: dict[str, Any] = {"type": "image", "image": png}
        for _ in range(times):
            block = {"type": "non_standard", "value": block}
        return block

    (found,) = walk(wrap(MAX_DEPTH))
    assert isinstance(found, Media)
    (found,) = walk(wrap(MAX_DEPTH + 1))
    assert isinstance(found, Refused)
    assert found.kind == "nested"


def test_blocks_that_contain_themselves_end() -> None:
    block: dict[str, Any] = {"type": "non_standard"}
    block["value"] = block
    record: dict[str, Any] = {"filename": "a"}
    record["file"] = record
    data: dict[str, Any] = {}
    data["json"] = data
    for endless in (block, {"type": "file", "file": record}, data):
        assert [type(found) for found in walk(endless)] == [Refused]


KEYS = (
    "type", "text", "image", "image_url", "url", "base64", "data", "source", "file_id", "path",
    "inline_data", "content", "value", "output", "tool_result", "guardContent", "file",
    "file_data", "mime_type", "json", "images", "result", "document", "audio", "parts",
)  # fmt: skip
VALUES = (
    "image", "image_url", "input_image", "media", "file", "document", "tool_result", "text",
    "non_standard", "reasoning", "image/png", "url", "content", "data:image/png;base64,AAAA",
    "file:///x", "https://example.org/",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=3),
            inner | st.sampled_from(VALUES),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=4))
@settings(max_examples=300, deadline=None)
def test_junk_never_raises_and_never_becomes_an_image(blocks: list[Any]) -> None:
    message = HumanMessage("")
    message.content = blocks
    turn = read_turn([message])
    found = [found for block in blocks for found in walk(block)]
    media = [f for f in found if not isinstance(f, Text | Opaque)]
    assert len(media) == len(turn.images) + len(turn.skipped)
    assert not turn.images


@given(st.lists(st.sampled_from(sorted(FORMS) + sorted(REFUSED) + sorted(SILENT)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_images_and_skipped_media_add_up(names: list[str]) -> None:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), "teal").save(file, "PNG")
    data = file.getvalue()
    encoded = base64.b64encode(data).decode()
    blocks = [
        FORMS[n](data, encoded) if n in FORMS else REFUSED[n][0] if n in REFUSED else SILENT[n]
        for n in names
    ]
    message = HumanMessage("")
    message.content = blocks
    turn = read_turn([message])
    assert len(turn.images) == sum(name in FORMS for name in names)
    assert len(turn.skipped) == sum(name in REFUSED for name in names)
    assert [image.block_index for image in turn.images] == [
        i for i, name in enumerate(names) if name in FORMS
    ]
