"""Messages made again hold what was read, the state a provider needs, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from PIL import Image

from safecode_guard.errors import FetchFailed
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.reading import LEFT_OUT, read_turn
from safecode_guard.turns.rebuild import rebuild
from safecode_guard.turns.turn import TextPart, Turn, TurnMessage

PIXELS = Image.effect_noise((16, 12), 90).convert("RGB")


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


DATA = encode(PIXELS)
BASE64 = base64.b64encode(DATA).decode()
URL = f"data:image/png;base64,{BASE64}"
IMAGE = {"type": "image", "base64": BASE64, "mime_type": "image/png"}
TEXT = {"type": "text", "text": "words"}


def again(*messages: BaseMessage) -> list[BaseMessage]:
    turn = read_turn(messages)
    assert not turn.skipped
    return rebuild(turn)


def content(blocks: Any) -> HumanMessage:
    message = HumanMessage("")
    message.content = blocks
    return message


# -- text and messages ----------------------------------------------------------------------------

CONVERSATION: list[BaseMessage] = [
    SystemMessage("Be brief.", id="s"),
    HumanMessage([TEXT, IMAGE], name="kim", id="h"),
    AIMessage("Hm.", tool_calls=[{"id": "c1", "name": "look", "args": {"zoom": 2}}], id="a"),
    ToolMessage([TEXT, IMAGE], tool_call_id="c1", name="look", id="t", status="error"),
    AIMessage("Done.", id="b"),
    HumanMessage("Thanks."),
]


def test_a_conversation_comes_back_as_it_was() -> None:
    assert again(*CONVERSATION) == CONVERSATION


def test_a_message_made_again_reads_the_same() -> None:
    turn = read_turn(CONVERSATION)
    assert read_turn(rebuild(turn)).key() == turn.key()
    assert rebuild(read_turn(rebuild(turn))) == rebuild(turn)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (HumanMessage("words"), HumanMessage("words")),
        (HumanMessage([TEXT]), HumanMessage([TEXT])),
        (HumanMessage(["one", "two"]), HumanMessage([
            {"type": "text", "text": "one"}, {"type": "text", "text": "two"},
        ])),
        (HumanMessage(""), HumanMessage("")),
        (HumanMessage([]), HumanMessage("")),
        (ChatMessage("words", role="user"), HumanMessage("words")),
        (ChatMessage("words", role="model"), AIMessage("words")),
        (ChatMessage("words", role="tool"), ChatMessage("words", role="tool")),
        (FunctionMessage("words", name="f"), FunctionMessage("words", name="f")),
        (AIMessageChunk("words"), AIMessage("words")),
        (HumanMessage([{"type": "input_text", "text": "a", "annotations": []}]),
         HumanMessage([{"type": "text", "text": "a"}])),
        (HumanMessage([{"toolResult": {"content": [{"json": {"n": 3}}]}}]),
         HumanMessage([{"type": "text", "text": '{"n": 3}'}])),
    ],
)  # fmt: skip
def test_text_comes_back_in_one_form(message: BaseMessage, expected: BaseMessage) -> None:
    assert again(message) == [expected]


def test_the_developer_stays_one() -> None:
    messages = convert_to_messages([{"role": "developer", "content": "Be brief."}])
    assert again(*messages) == messages


def test_a_turn_that_no_message_was_read_for_becomes_messages() -> None:
    turn = Turn((TurnMessage("user", (TextPart("Hello"),)),)).with_system("Be brief.")
    assert rebuild(turn.with_answer("Hi.")) == [
        SystemMessage("Be brief."), HumanMessage("Hello"), AIMessage("Hi."),
    ]  # fmt: skip
    edited = read_turn(CONVERSATION).with_system("And safe.")
    assert rebuild(edited)[0].content == "Be brief.\n\nAnd safe."
    assert rebuild(edited)[1:] == CONVERSATION[1:]


def test_what_is_left_out_is_a_note() -> None:
    turn = read_turn([HumanMessage([IMAGE, TEXT]), *CONVERSATION], ImagePolicy(max_images=2))
    assert rebuild(turn)[0].content == [{"type": "text", "text": LEFT_OUT}, TEXT]


def test_artifacts_and_metadata_stay_behind() -> None:
    message = AIMessage(
        "words",
        response_metadata={"id": "resp_1", "model_provider": "openai", "output_version": "v1"},
        usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
    )
    tool = ToolMessage("taken", tool_call_id="1", artifact=DATA, response_metadata={"a": 1})
    answer, result = again(message, tool)
    assert answer.response_metadata == {"model_provider": "openai", "output_version": "v1"}
    assert isinstance(result, ToolMessage)
    assert result.artifact is None
    assert result.response_metadata == {}


# -- pictures -------------------------------------------------------------------------------------


def shown(message: BaseMessage) -> list[tuple[bytes, str]]:
    """Return the bytes and mimes of the image blocks of a message that was made again."""
    assert isinstance(message.content, list)
    blocks = [b for b in message.content if isinstance(b, dict) and b["type"] == "image"]
    assert all(b.keys() == {"type", "base64", "mime_type"} for b in blocks)
    return [(base64.b64decode(b["base64"], validate=True), b["mime_type"]) for b in blocks]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "base64": BASE64, "mime_type": "text/html", "extras": {"a": 1}},
        {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": BASE64}},
        {"image": {"format": "png", "source": {"bytes": DATA}}},
        {"inline_data": {"mime_type": "image/png", "data": BASE64}},
        {"type": "input_image", "image_url": URL, "file_id": None},
        {"type": "image", "base64": base64.encodebytes(DATA).decode()},
        {"type": "tool_result", "tool_use_id": "1", "content": [IMAGE]},
    ],
)
def test_a_picture_is_handed_on_in_one_form_whatever_it_came_in(block: Any) -> None:
    assert again(HumanMessage([block])) == [HumanMessage([IMAGE])]


def test_url_safe_base64_that_others_decode_otherwise_is_handed_on_as_standard_base64() -> None:
    plain = next(
        data
        for red in range(256)
        if not set("+/")
        & set(base64.b64encode(data := encode(Image.new("L", (8, 8), red))).decode())
    )
    data = plain + b"\0" * (-len(plain) % 3) + b"\xff" * 3
    url_safe = base64.urlsafe_b64encode(data).decode()
    assert url_safe.endswith("____")
    assert base64.b64decode(url_safe) != data  # what readers of the standard alphabet make of it
    turn = read_turn([HumanMessage([{"type": "image", "base64": url_safe}])])
    ((handed_on, _),) = shown(rebuild(turn)[0])
    assert handed_on == data
    assert hashlib.sha256(handed_on).hexdigest() == turn.images[0].sha256


def oriented() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(PIXELS, "JPEG", exif=exif)


def animation(format: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), (40 * i, 0, 0)) for i in range(3)]
    return encode(frames[0], format, save_all=True, append_images=frames[1:])


MADE: dict[str, Any] = {
    "animated gif": animation("GIF"),
    "animated png": animation("PNG"),
    "animated webp": animation("WEBP"),
    "transparency": encode(PIXELS.convert("RGBA")),
    "turned": oriented(),
    "second view": encode(PIXELS, "MPO", save_all=True, append_images=[PIXELS]),
    "wide samples": encode(PIXELS.convert("I;16"), "PNG"),
    "an image object": PIXELS,
}


@pytest.mark.parametrize("name", MADE)
def test_what_other_readers_could_see_otherwise_is_handed_on_as_judged(name: str) -> None:
    turn = read_turn([HumanMessage([{"type": "image", "image": MADE[name]}])])
    files = shown(rebuild(turn)[0])
    assert len(files) == len(turn.images)
    for image, subject, (data, mime) in zip(turn.images, turn.subjects, files, strict=True):
        assert mime == "image/png"
        assert Image.open(io.BytesIO(data)).tobytes() == image.pixels.tobytes()
        assert subject.shown_sha256 == hashlib.sha256(data).hexdigest()
        assert subject.shown_sha256 != subject.sha256


def test_no_other_hash_is_recorded_where_the_very_bytes_are_handed_on() -> None:
    turn = read_turn([HumanMessage([IMAGE])])
    assert shown(rebuild(turn)[0]) == [(DATA, "image/png")]
    assert turn.subjects[0].shown_sha256 is None


def test_fetched_bytes_take_the_place_of_their_url() -> None:
    policy = ImagePolicy(allow_urls=True, url_hosts=("pictures.example",))
    served: dict[str, bytes] = {"https://pictures.example/a.png": DATA}

    def fetch(url: str, given: ImagePolicy) -> bytes:
        if url not in served:
            raise FetchFailed("gone")
        return served.pop(url)  # once: what would be fetched again might be another picture

    good, bad = ({"type": "image", "url": f"https://pictures.example/{n}.png"} for n in "ab")
    turn = read_turn([HumanMessage([good, TEXT, bad])], policy, fetch=fetch)
    assert rebuild(turn) == [HumanMessage([IMAGE, TEXT])]
    assert [media.reason.partition(":")[0] for media in turn.skipped] == ["FetchFailed"]


# -- text of tools --------------------------------------------------------------------------------


def test_an_image_in_a_tools_text_is_an_image_block() -> None:
    (message,) = again(ToolMessage(f"before {URL} after", tool_call_id="1"))
    assert message.content == [
        {"type": "text", "text": "before "}, IMAGE, {"type": "text", "text": " after"},
    ]  # fmt: skip


OUTPUT = {
    "type": "computer_call_output",
    "acknowledged_safety_checks": [{"id": "sc_1", "code": "malicious_instructions"}],
}


def test_a_computers_screenshot_stays_the_url_that_openais_client_wants() -> None:
    given = URL.replace("image/png", "IMAGE/X;name=a").replace("=", "=", 1)
    (message,) = again(ToolMessage(given, tool_call_id="1", additional_kwargs=OUTPUT))
    assert message.content == URL  # the bytes' own type, and nothing else
    assert message.additional_kwargs == OUTPUT


def test_a_computers_screenshot_among_blocks_stays_an_input_image() -> None:
    blocks = [TEXT, {"type": "input_image", "image_url": URL}]
    (message,) = again(ToolMessage(blocks, tool_call_id="1", additional_kwargs=OUTPUT))
    assert message.content == blocks


def test_a_computers_screenshot_that_is_left_out_is_a_blank_one() -> None:
    shot = ToolMessage(URL, tool_call_id="1", additional_kwargs=OUTPUT)
    turn = read_turn([shot, HumanMessage([IMAGE])], ImagePolicy(max_images=1))
    url = rebuild(turn)[0].content
    assert isinstance(url, str)
    blank = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    assert len(blank.getcolors() or ()) == 1


# -- what a provider needs back -------------------------------------------------------------------

LOOP: list[Any] = [
    {"type": "thinking", "thinking": "The stove is on.", "signature": "EqQBCgIYAhIM"},
    {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"},
    TEXT,
    {"type": "tool_use", "id": "c1", "name": "open", "input": {"url": "https://e.org/a.png"}},
]
SEARCH: list[Any] = [
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
    {
        "type": "web_search_tool_result",
        "tool_use_id": "s",
        "content": [
            {"type": "web_search_result", "url": "https://e.org", "title": "t",
             "encrypted_content": "EqgfCioIARgB"},
        ],
    },
    TEXT,
    {
        "type": "code_execution_tool_result",
        "tool_use_id": "c",
        "content": {"type": "code_execution_result", "stdout": "42\n", "stderr": "",
                    "return_code": 0, "content": []},
    },
]  # fmt: skip
RESPONSES: list[Any] = [
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAABo"},
    {"type": "web_search_call", "id": "ws_1", "status": "completed",
     "action": {"type": "search", "query": "q", "sources": [{"type": "url", "url": "https://e"}]}},
    {"type": "computer_call", "id": "cu_1", "call_id": "c", "status": "completed",
     "action": {"type": "click", "x": 1, "y": 2, "button": "left"}, "pending_safety_checks": []},
    {"type": "code_interpreter_call", "id": "ci_1", "code": "1+1", "container_id": "cntr_1",
     "outputs": [{"type": "logs", "logs": "2"}]},
    {"type": "text", "text": "words", "id": "msg_1",
     "annotations": [{"type": "url_citation", "url": "https://e.org", "title": "t"}]},
]  # fmt: skip
STANDARD: list[Any] = [
    {"type": "reasoning", "reasoning": "hm", "extras": {"signature": "EqQB"}},
    {"type": "server_tool_call", "id": "s", "name": "web_search", "args": {"query": "q"}},
    {"type": "server_tool_result", "tool_call_id": "s", "status": "success",
     "output": {"sources": [{"type": "url", "url": "https://e.org"}]}},
    {"type": "non_standard", "value": {"type": "compaction", "content": "so far"}},
    {"type": "text", "text": "words", "extras": {"signature": "EqQB"}},
]  # fmt: skip
BEDROCK: list[Any] = [
    {"type": "reasoning_content", "reasoning_content": {"text": "hm", "signature": "EqQB"}},
    {"toolUse": {"toolUseId": "c1", "name": "f", "input": {"path": "/tmp"}}},
    {"cachePoint": {"type": "default"}},
]


@pytest.mark.parametrize("blocks", [LOOP, SEARCH, RESPONSES, STANDARD, BEDROCK])
def test_state_goes_back_as_it_came_and_in_its_place(blocks: list[Any]) -> None:
    answer = AIMessage(blocks, tool_calls=[{"id": "c1", "name": "f", "args": {}}])
    before = json.dumps(blocks)
    assert again(HumanMessage("x"), answer)[1] == answer
    assert json.dumps(blocks) == before


@pytest.mark.parametrize("blocks", [LOOP, SEARCH, RESPONSES, STANDARD, BEDROCK])
def test_no_judge_and_no_local_model_is_shown_state(blocks: list[Any]) -> None:
    (message,) = read_turn([AIMessage(blocks)]).messages
    assert all(isinstance(part, TextPart) for part in message.parts)
    for hidden in ("stove", "EqQB", "query", "gAAAA", "click", "so far", "https"):
        assert hidden not in message.text


def test_what_a_providers_tool_printed_is_read_and_goes_back_once() -> None:
    turn = read_turn([AIMessage(SEARCH)])
    assert turn.messages[0].text == "words42\n"
    assert str(rebuild(turn)[0].content).count("42") == 1


@pytest.mark.parametrize(
    "kwargs",
    [
        {"reasoning_content": "hm"},
        {"function_call": {"name": "f", "arguments": '{"url": "https://e.org"}'}},
        {
            "refusal": None,
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"__gemini_function_call_thought_signatures__": {"call_1": "CpsBAdHt"}},
    ],
)
def test_kwargs_go_back(kwargs: dict[str, Any]) -> None:
    answer = AIMessage("words", additional_kwargs=kwargs, tool_calls=[
        {"id": "1", "name": "f", "args": {}},
    ])  # fmt: skip
    assert again(answer)[0].additional_kwargs == kwargs


def test_kwargs_that_are_sent_to_no_model_stay_behind() -> None:
    unsent = {"parsed": object(), "lc_source": "summary", "lc_data": {"path": "/tmp", "url": "x"}}
    answer = AIMessage("{}", additional_kwargs={**unsent, "refusal": None})
    assert again(answer)[0].additional_kwargs == {"refusal": None}


def test_state_is_copied_so_that_later_changes_do_not_reach_the_model() -> None:
    block: dict[str, Any] = {"type": "thinking", "thinking": "hm", "more": {}}
    kwargs: dict[str, Any] = {"a": {}}
    answer = AIMessage([block], additional_kwargs=kwargs)
    turn = read_turn([answer])
    answer.content[0]["more"]["image_url"] = URL  # type: ignore[index]
    answer.additional_kwargs["a"]["image_url"] = URL
    rebuild(turn)[0].content[0]["more"]["image_url"] = URL  # type: ignore[index]
    assert URL not in str(rebuild(turn))


@pytest.mark.parametrize("block", [LOOP[0], LOOP[3], RESPONSES[0], SEARCH[1]])
@pytest.mark.parametrize("message", [HumanMessage, SystemMessage])
def test_words_that_no_judge_saw_do_not_go_out_as_a_users_own(block: Any, message: Any) -> None:
    assert again(message([block, TEXT]))[0].content == [TEXT]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "tool_result", "tool_use_id": "t", "content": "words", "is_error": False},
        {"type": "tool_result", "tool_use_id": "t", "content": [TEXT]},
        {"type": "custom_tool_call_output", "output": "words"},
        {"type": "function_call_output", "call_id": "c", "output": "words"},
    ],
)
def test_a_result_that_was_read_to_the_last_word_keeps_its_id(block: Any) -> None:
    for message in (HumanMessage([block]), ToolMessage([block], tool_call_id="1")):
        turn = read_turn([message])
        assert turn.messages[0].text == "words"
        assert rebuild(turn) == [message]
    more = {**block, "unread": "words"}
    assert again(HumanMessage([more])) == [HumanMessage([TEXT])]


def test_marks_of_a_cache_go_back_in_every_message() -> None:
    marked = {**TEXT, "cache_control": {"type": "ephemeral"}}
    blocks = [marked, IMAGE, {"cachePoint": {"type": "default"}}]
    for message in (HumanMessage(blocks), SystemMessage(blocks), AIMessage(blocks)):
        assert again(message) == [message]


def test_what_stands_beside_a_users_text_stays_behind() -> None:
    more = {**TEXT, "cache_control": {"type": "ephemeral"}, "unread": "words"}
    assert again(HumanMessage([more])) == [HumanMessage([TEXT])]


# -- in general -----------------------------------------------------------------------------------

BLOCKS = [TEXT, IMAGE, *LOOP, *SEARCH, *RESPONSES, *STANDARD, *BEDROCK, {"type": "audio"}]
KINDS: list[Any] = [
    HumanMessage,
    AIMessage,
    SystemMessage,
    lambda content: ToolMessage(content, tool_call_id="1"),
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.text(max_size=9) | st.lists(st.sampled_from(BLOCKS), max_size=5),
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=150, deadline=None)
def test_nothing_that_was_not_read_is_handed_on(drawn: list[tuple[Any, Any]]) -> None:
    messages = [make(content) for make, content in drawn]
    turn = read_turn(messages)
    made = rebuild(turn)
    once_more = read_turn(made)
    assert not once_more.skipped
    assert once_more.key() == turn.key()
    assert rebuild(once_more) == made
