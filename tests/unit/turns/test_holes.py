"""Ways in which a picture once went past the judge, or an error past the error tree."""

from __future__ import annotations

import base64
import binascii
import io
import json
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    ToolMessageChunk,
)
from PIL import Image
from pydantic import BaseModel

from safecode_guard.errors import FetchFailed, ForbiddenSource, GuardError, UnreadableCall
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.fetch import Target, download, fetch_image
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.turn import ImagePart, TextPart, Turn

PIXELS = Image.effect_noise((16, 12), 90).convert("RGB")
FILE = io.BytesIO()
PIXELS.save(FILE, "PNG")
DATA = FILE.getvalue()
BASE64 = base64.b64encode(DATA).decode()
URL = f"data:image/png;base64,{BASE64}"
IMAGE = {"type": "image", "base64": BASE64, "mime_type": "image/png"}


def read(*messages: BaseMessage) -> Turn:
    return read_turn(messages)


def content(blocks: Any) -> HumanMessage:
    """Return a message with any content, past LangChain's own checks."""
    message = HumanMessage("")
    message.content = blocks
    return message


def tool(content: Any, **fields: Any) -> ToolMessage:
    return ToolMessage(content, tool_call_id="1", **fields)


# -- (a) base64 that two readers decode to two images ---------------------------------------------


def test_base64_of_mixed_alphabets_is_refused() -> None:
    data = DATA + b"\0" * (-len(DATA) % 3)  # so that there is no padding
    lenient = base64.b64encode(data).decode() + "-_-_"
    assert binascii.a2b_base64(lenient) == data  # what skips foreign letters sees other bytes
    assert set("+/") & set(lenient)
    turn = read(content([{"type": "image", "base64": lenient}]))
    assert not turn.images
    assert turn.skipped[0].reason.startswith("UnreadableImage")


# -- (b) blocks that carry media under a key nobody looked at -------------------------------------

SOURCES: dict[str, Any] = {
    "url": "https://e.org/a.png",
    "image_url": {"url": URL},
    "image": URL,
    "images": [URL],
    "file_id": "file-1",
    "path": "/tmp/a.png",
    "source": {"type": "base64", "media_type": "image/png", "data": BASE64},
    "data": BASE64,
    "base64": BASE64,
    "blob": BASE64,
    "bytes": DATA,
    "inline_data": {"mime_type": "image/png", "data": BASE64},
    "file_data": {"file_uri": "gs://b/a.png"},
    "file": {"file_id": "file-1"},
    "extras": {"thumbnail": URL},
    "pixels": PIXELS,
}


@pytest.mark.parametrize("key", SOURCES)
@pytest.mark.parametrize(
    "kind", ["text", "input_text", "output_text", "text-plain", "refusal", "logs", "guard_content"]
)
def test_a_text_block_that_carries_a_source_is_refused(kind: str, key: str) -> None:
    said = {"refusal": "refusal", "logs": "logs"}.get(kind, "text")
    turn = read(content([{"type": kind, said: "words", key: SOURCES[key]}]))
    assert len(turn.skipped) == 1
    assert not turn.messages[0].parts


@pytest.mark.parametrize("key", SOURCES)
@pytest.mark.parametrize(
    "kind",
    ["reasoning", "thinking", "redacted_thinking", "computer_call", "tool_call", "web_search_call"],
)
def test_state_of_a_provider_that_carries_a_source_is_refused(kind: str, key: str) -> None:
    if kind == "redacted_thinking" and key == "data":
        pytest.skip("that is where its encrypted text stands; an image in it is refused below")
    message = AIMessage("")
    message.content = [{"type": kind, key: SOURCES[key]}]
    turn = read(message)
    assert len(turn.skipped) == 1
    assert not turn.messages[0].state.carried


CARRIERS: dict[str, Any] = {
    "an image in encrypted reasoning": {"type": "redacted_thinking", "data": BASE64},
    "an image in a computer's action": {
        "type": "computer_call",
        "action": {"type": "click", "image_url": URL},
    },
    "an image by its id in reasoning": {
        "type": "reasoning",
        "summary": [{"type": "image", "id": "img_1"}],
    },
    "a blob": {"type": "resource", "resource": {"mimeType": "image/png", "blob": BASE64}},
    "a blob without a type": {"blob": BASE64, "text": "words"},
    "bytes in an image": {"type": "image", "bytes": DATA},
    "a blob in an image": {"type": "image", "base64": BASE64, "blob": BASE64},
    "bytes in a tool's data": {"toolResult": {"content": [{"json": {"shot": DATA}}]}},
    "pixels in a tool's data": {"functionResponse": {"name": "f", "response": {"shot": PIXELS}}},
    "a second source in a record": {
        "type": "image",
        "source": {"type": "base64", "data": BASE64, "blob": BASE64},
    },
    "a second source beside a record": {
        "type": "image",
        "image": {"source": {"bytes": DATA}, "path": "/tmp/a.png"},
    },
    "a file in a file": {"type": "file", "file": {"file": {"file_id": "file-1"}}},
    "a source beside a document's text": {
        "type": "document",
        "source": {"type": "text", "data": "words", "url": "https://e.org/a.png"},
    },
}


@pytest.mark.parametrize("name", CARRIERS)
@pytest.mark.parametrize("message", [HumanMessage, AIMessage, SystemMessage])
def test_a_carrier_of_media_is_refused(name: str, message: type[BaseMessage]) -> None:
    made = message("")
    made.content = [CARRIERS[name]]
    turn = read(made)
    assert turn.skipped
    assert not turn.images


WRAPPED: dict[str, Any] = {
    "an image beside a tool's content": {
        "toolResult": {
            "toolUseId": "1",
            "content": [{"text": "taken"}],
            "image": {"format": "png", "source": {"bytes": DATA}},
        }
    },
    "an image beside a function's parts": {
        "functionResponse": {
            "name": "f",
            "response": {},
            "parts": [{"text": "taken"}],
            "inlineData": {"mimeType": "image/png", "data": BASE64},
        }
    },
    "a url in a function's data beside its parts": {
        "functionResponse": {"name": "f", "response": {"shot": URL}, "parts": [{"text": "taken"}]}
    },
    "a block in a list of texts": {"type": "text", "text": ["taken", {"image_url": {"url": URL}}]},
    "a url in the text of a nested result": {"type": "tool_result", "content": f"taken: {URL}"},
    "a url in a tool's data": {"toolResult": {"content": [{"json": {"shot": URL}}]}},
}


@pytest.mark.parametrize("name", WRAPPED)
def test_an_image_at_the_side_of_a_wrapper_is_read(name: str) -> None:
    turn = read(content([WRAPPED[name]]))
    assert len(turn.images) == 1
    assert not turn.skipped


@pytest.mark.parametrize("key", ["file_data", "image", "audio", "documents", "files"])
def test_media_in_the_kwargs_of_a_message_are_refused(key: str) -> None:
    turn = read(AIMessage("words", additional_kwargs={"more": [{key: "x"}]}))
    (skipped,) = turn.skipped
    assert (skipped.kind, skipped.block_index) == ("additional_kwargs", -1)
    assert not turn.messages[0].state.kwargs


@pytest.mark.parametrize("value", [URL, [DATA], {"deep": [{"er": URL}]}, PIXELS])
def test_media_in_the_arguments_of_a_call_are_refused(value: Any) -> None:
    message = AIMessage("", tool_calls=[{"id": "1", "name": "upload", "args": {"picture": value}}])
    (skipped,) = read(message).skipped
    assert skipped.kind == "tool_call"


def test_words_in_the_arguments_of_a_call_are_not() -> None:
    arguments = {"url": "https://e.org/a.png", "path": "/tmp/a.png", "image": "kitchen", "n": 3}
    turn = read(AIMessage("", tool_calls=[{"id": "1", "name": "open", "args": arguments}]))
    assert turn.messages[0].tool_calls[0].arguments == arguments
    assert not turn.skipped


# -- (c) images that became text, or stood beside it ----------------------------------------------


def test_the_screenshot_of_openais_computer_use_is_an_image() -> None:
    turn = read(tool(URL, additional_kwargs={"type": "computer_call_output"}))
    assert turn.messages[0].parts == (ImagePart(0),)


@pytest.mark.parametrize("other", ["https://e.org/a.png", "/etc/passwd", "failed", ""])
def test_another_text_in_the_place_of_a_screenshots_url_is_refused(other: str) -> None:
    turn = read(tool(other, additional_kwargs={"type": "computer_call_output"}))
    assert turn.skipped[0].reason.startswith("ForbiddenSource")
    assert not turn.messages[0].parts


TOOL_TEXTS: dict[str, str] = {
    "a url": URL,
    "a url in words": f"Taken: {URL}",
    "a screenshot in json": json.dumps({"screenshot": URL}),
    "an unknown block in json": json.dumps([{"type": "input_image", "image_url": URL}]),
    "a v1 block in json": json.dumps([IMAGE]),
    "gemini's media in json": json.dumps(
        {"type": "media", "mime_type": "image/png", "data": BASE64}
    ),
    "bedrock's image in json": json.dumps({"image": {"source": {"bytes": BASE64}}}),
    "bytes as python writes them": str([{"image": {"source": {"bytes": DATA}}}]),
    "base64 alone": BASE64,
}


@pytest.mark.parametrize("name", TOOL_TEXTS)
@pytest.mark.parametrize(
    "message",
    [
        tool,
        lambda text: tool([text]),
        lambda text: tool([{"type": "text", "text": text}]),
        lambda text: ToolMessageChunk(text, tool_call_id="1"),
        lambda text: FunctionMessage(text, name="f"),
        lambda text: ChatMessage(text, role="tool"),
    ],
)
def test_an_image_that_became_a_tools_text_is_read(
    name: str, message: Callable[[str], BaseMessage]
) -> None:
    turn = read(message(TOOL_TEXTS[name]))
    assert [image.mime for image in turn.images] == ["image/png"]
    assert turn.images[0].data == DATA
    said = "".join(p.text for p in turn.messages[0].parts if isinstance(p, TextPart))
    assert BASE64 not in said
    assert len(said) < 120


def test_an_image_takes_the_place_of_its_url_in_a_tools_text() -> None:
    turn = read(tool(f"before {URL} after"))
    assert turn.messages[0].parts == (TextPart("before "), ImagePart(0), TextPart(" after"))


class Content(BaseModel):
    type: str = "image"
    data: str = BASE64
    mimeType: str = "image/png"


@pytest.mark.parametrize("artifact", [DATA, PIXELS, URL, IMAGE, [Content()], {"pages": [DATA]}])
def test_an_image_in_an_artifact_is_judged_and_not_shown(artifact: Any) -> None:
    turn = read(tool("taken", artifact=artifact))
    assert len(turn.images) == 1
    assert turn.messages[0].parts == (TextPart("taken"),)
    assert (turn.messages[0].image_indices, turn.messages[0].judged_indices) == ((), (0,))
    assert turn.images[0].block_index == -1


def test_a_broken_image_in_an_artifact_is_listed() -> None:
    (skipped,) = read(tool("taken", artifact=DATA[:60])).skipped
    assert skipped.block_index == -1


# -- (r) errors that were not of the tree ---------------------------------------------------------


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "arguments",
    [
        nested(3000),
        {"a": {1: 2, "b": 3}},
        {"a": {None: 1, "b": 2}},
        {"a": 10**5000},
        "words",
        [("a", 1)],
    ],
    ids=["deep", "mixed keys", "more mixed keys", "a number too long to write", "words", "pairs"],
)
@pytest.mark.parametrize("strict", [True, False])
def test_arguments_that_are_no_plain_data_are_an_unreadable_call(
    arguments: Any, strict: bool
) -> None:
    message = AIMessage("")
    message.tool_calls = [{"id": "1", "name": "f", "args": arguments}]  # type: ignore[misc]
    with pytest.raises(UnreadableCall, match="'f'") as caught:
        read_turn([message], strict=strict)
    assert caught.value.hint


@pytest.mark.parametrize(
    "call", [{"id": "1", "args": {}}, {"name": "", "args": {}}, {"name": 3}, 7]
)
def test_a_call_without_a_name_is_an_unreadable_call(call: Any) -> None:
    message = AIMessage("")
    message.tool_calls = [call]
    with pytest.raises(UnreadableCall, match="no name"):
        read(message)


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (UnicodeError("label too long"), ForbiddenSource),
        (TimeoutError("slow"), FetchFailed),
        (socket.gaierror("unknown"), FetchFailed),
    ],
)
def test_errors_of_a_resolver_are_typed(raised: Exception, error: type[Exception]) -> None:
    policy = ImagePolicy(allow_urls=True, url_hosts=("e.org",))

    def resolve(host: str) -> list[str]:
        raise raised

    with pytest.raises(error):
        fetch_image("https://e.org/a.png", policy, resolve=resolve)


@pytest.mark.parametrize("seconds", [0.3, 30])
def test_a_resolver_that_takes_too_long_is_a_failed_fetch(seconds: float) -> None:
    policy = ImagePolicy(allow_urls=True, url_hosts=("e.org",), url_timeout_s=0.2)

    def resolve(host: str) -> list[str]:
        time.sleep(min(seconds, 2))
        return ["93.184.215.14"]

    start = time.monotonic()
    with pytest.raises(FetchFailed, match="in time"):
        fetch_image("https://e.org/a.png", policy, resolve=resolve)
    assert time.monotonic() - start < 1


def test_addresses_that_come_after_the_time_is_over_are_a_failed_fetch() -> None:
    with pytest.raises(FetchFailed, match="in time"):
        download(Target("e.org", "/"), ["93.184.215.14"], deadline=time.monotonic(), max_bytes=9)


@pytest.mark.parametrize(
    "kind",
    [
        "evil\n[INFO] safe", "a\x1b[2Jb", "\u202egnp", "../../etc/passwd", "a\0b", "C:\\x",
        "\ud800", "x" * 500, "<script>",
    ],
)  # fmt: skip
def test_a_types_name_cannot_write_into_logs(kind: str) -> None:
    (skipped,) = read(content([{"type": kind, "value": 1}])).skipped
    for text in (skipped.kind, skipped.reason):
        assert text.isprintable()
        assert not set(text) & set("\\<>\x1b")
        text.encode()
    assert "/" not in skipped.kind
    assert len(skipped.kind) <= 40


def test_a_mimes_name_cannot_write_into_logs() -> None:
    block = {"type": "file", "base64": "AAAA", "mime_type": "text/\n\x1b[31mplain"}
    (skipped,) = read(content([block])).skipped
    assert skipped.reason.isprintable()


class Odd:
    """An object whose every comparison fails, as arrays' do."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


def _released() -> memoryview:
    view = memoryview(DATA)
    view.release()
    return view


THINGS: dict[str, Any] = {
    "bytes": DATA,
    "pixels": PIXELS,
    "bytearray": bytearray(DATA),
    "memoryview": memoryview(DATA),
    "odd": Odd(),
    "memory that was given back": _released(),
    "an odd mime": SimpleNamespace(mimeType=Odd(), data=BASE64),
    "object": object(),
    "class": Odd,
}


def test_a_number_too_long_to_write_is_refused_in_a_tools_data() -> None:
    (skipped,) = read(content([{"json": {"n": 10**5000}}])).skipped
    assert skipped.kind == "json"


KEYS = (
    "type", "text", "image", "image_url", "url", "base64", "data", "source", "file_id", "path",
    "inline_data", "content", "value", "output", "toolResult", "functionResponse", "guardContent",
    "file", "file_data", "mime_type", "json", "images", "result", "document", "audio", "parts",
    "source_type", "blob", "bytes", "args", "name", "id", "input", "annotations", "response",
    "thought", "toolUse",
)  # fmt: skip
VALUES = (
    "image", "image_url", "input_image", "media", "file", "document", "tool_result", "text",
    "non_standard", "reasoning", "image/png", "content", "web_search_tool_result", "tool_use",
    "redacted_thinking", "computer_call_output", "file:///x", "https://e.org/", URL, BASE64,
    "data:image/png;base64,AAAA", "\ud800", "b'\\x89PNG",
)  # fmt: skip
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9)
    | st.sampled_from(VALUES)
    | st.sampled_from(sorted(THINGS)).map(THINGS.__getitem__),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.sampled_from(KEYS) | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=14,
)
MESSAGES: tuple[Callable[[], BaseMessage], ...] = (
    lambda: HumanMessage(""),
    lambda: HumanMessageChunk(""),
    lambda: AIMessage(""),
    lambda: AIMessageChunk(""),
    lambda: SystemMessage(""),
    lambda: tool(""),
    lambda: ToolMessageChunk("", tool_call_id="1"),
    lambda: FunctionMessage("", name="f"),
    lambda: ChatMessage("", role="user"),
    lambda: ChatMessageChunk("", role="tool"),
    lambda: RemoveMessage(id="1"),
)
FIELDS = (
    "content", "additional_kwargs", "response_metadata", "artifact", "tool_calls", "name", "id",
    "status", "tool_call_id",
)  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from(MESSAGES), st.dictionaries(st.sampled_from(FIELDS), ANYTHING)),
        max_size=3,
    ),
    st.booleans(),
)
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_reading_raises_nothing_but_the_librarys_own_errors(
    drawn: list[tuple[Callable[[], BaseMessage], dict[str, Any]]], strict: bool
) -> None:
    messages = []
    for make, fields in drawn:
        message = make()
        message.__dict__.update(fields)  # past every check of LangChain's
        messages.append(message)
    try:
        turn = read_turn(messages, strict=strict)
    except GuardError:
        return
    assert len(turn.messages) == sum(message.type != "remove" for message in messages)
    for message in turn.messages:
        shown = [part for part in message.parts if isinstance(part, ImagePart)]
        assert all(part.index < len(turn.images) for part in shown)
    json.dumps([media.model_dump() for media in turn.skipped]).encode()


@given(st.lists(ANYTHING, max_size=2))
@settings(max_examples=100, deadline=None)
def test_what_is_no_message_is_an_error_of_the_library(items: list[Any]) -> None:
    things = [
        *items,
        SimpleNamespace(content="x", type=3),
        SimpleNamespace(type="human"),
        SimpleNamespace(type=Odd()),
    ]
    for thing in things:
        with pytest.raises(GuardError):
            read_turn([thing])
