from __future__ import annotations

import base64
import io
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
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
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
    convert_to_messages,
    messages_from_dict,
    messages_to_dict,
)
from PIL import Image

from safecode_guard.errors import (
    ForbiddenSource,
    GuardError,
    TemplateError,
    UnsupportedMedia,
)
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.turn import ImagePart, TextPart, ToolCall, Turn, TurnMessage


def block(colour: str = "teal") -> dict[str, str]:
    file = io.BytesIO()
    Image.new("RGB", (5, 4), colour).save(file, "PNG")
    return {
        "type": "image",
        "base64": base64.b64encode(file.getvalue()).decode(),
        "mime_type": "image/png",
    }


TEXT = {"type": "text", "text": "words"}


# -- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "role"),
    [
        (HumanMessage([TEXT, block()]), "user"),
        (HumanMessageChunk([TEXT, block()]), "user"),
        (AIMessage([TEXT, block()]), "assistant"),
        (AIMessageChunk([TEXT, block()]), "assistant"),
        (
            AIMessage([TEXT, block()], response_metadata={"model_provider": "anthropic"}),
            "assistant",
        ),
        (AIMessage([TEXT, block()], response_metadata={"model_provider": "openai"}), "assistant"),
        (SystemMessage([TEXT, block()]), "system"),
        (SystemMessageChunk([TEXT, block()]), "system"),
        (ToolMessage([TEXT, block()], tool_call_id="1"), "tool"),
        (ToolMessageChunk([TEXT, block()], tool_call_id="1"), "tool"),
        (FunctionMessage([TEXT, block()], name="f"), "tool"),
        (ChatMessage([TEXT, block()], role="user"), "user"),
        (ChatMessage([TEXT, block()], role="Human"), "user"),
        (ChatMessage([TEXT, block()], role="assistant"), "assistant"),
        (ChatMessage([TEXT, block()], role="model"), "assistant"),
        (ChatMessage([TEXT, block()], role="developer"), "system"),
        (ChatMessageChunk([TEXT, block()], role="tool"), "tool"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseMessage) else value,
)
def test_every_message_class_gives_its_role_text_and_image(message: BaseMessage, role: str) -> None:
    turn = read_turn([HumanMessage("before"), message])
    read = turn.messages[1]
    assert read.role == role
    assert read.parts == (TextPart("words"), ImagePart(0))
    assert (turn.images[0].message_index, turn.images[0].block_index) == (1, 1)
    assert not turn.skipped


def test_the_developer_is_the_system() -> None:
    messages = convert_to_messages([{"role": "developer", "content": "Be brief."}])
    assert read_turn(messages).messages[0].role == "system"


def test_an_unknown_role_is_an_error() -> None:
    with pytest.raises(TemplateError, match="Message 1 has the role 'critic'"):
        read_turn([HumanMessage("x"), ChatMessage("y", role="critic")])


@pytest.mark.parametrize("messages", [[], [RemoveMessage(id="1")]])
def test_an_empty_conversation_is_an_error(messages: list[BaseMessage]) -> None:
    with pytest.raises(TemplateError, match=r"empty.*at least one message"):
        read_turn(messages)


def test_what_is_no_message_is_an_error() -> None:
    with pytest.raises(TemplateError, match="Item 1 .* no message: str"):
        read_turn([HumanMessage("x"), "hello"])  # type: ignore[list-item]


def test_removals_are_ignored_and_positions_stay() -> None:
    turn = read_turn([RemoveMessage(id="1"), HumanMessage([block()])])
    assert len(turn.messages) == 1
    assert turn.images[0].message_index == 1
    assert turn.messages[0].image_indices == (0,)


def test_a_tool_loop_keeps_calls_results_and_names() -> None:
    turn = read_turn(
        [
            SystemMessage("Be brief."),
            HumanMessage([TEXT, block("red")], name="kim"),
            AIMessage("", tool_calls=[{"id": "c1", "name": "look", "args": {"zoom": 2}}]),
            ToolMessage([TEXT, block("blue")], tool_call_id="c1", name="look"),
            AIMessage("Done."),
            HumanMessage("Thanks."),
        ]
    )
    assert [m.role for m in turn.messages] == [
        "system", "user", "assistant", "tool", "assistant", "user",
    ]  # fmt: skip
    assert turn.messages[1].name == "kim"
    assert turn.messages[2].tool_calls == (ToolCall("c1", "look", {"zoom": 2}),)
    assert (turn.messages[3].tool_call_id, turn.messages[3].name) == ("c1", "look")
    assert [m.image_indices for m in turn.messages if m.image_indices] == [(0,), (1,)]
    assert [image.pixels.getpixel((0, 0)) for image in turn.images] == [(255, 0, 0), (0, 0, 255)]


def test_a_call_without_an_id_gets_one() -> None:
    calls = [{"id": None, "name": "a", "args": {}}, {"id": None, "name": "b", "args": {}}]
    turn = read_turn([HumanMessage("x"), AIMessage("", tool_calls=calls)])
    assert [call.id for call in turn.messages[1].tool_calls] == ["call_1_0", "call_1_1"]


def test_reasoning_is_not_sent_back() -> None:
    answer = AIMessage(
        [
            {"type": "reasoning", "reasoning": "secret"},
            {"type": "thinking", "thinking": "secret", "signature": "s"},
            {"type": "tool_use", "id": "1", "name": "f", "input": {"a": "secret"}},
            TEXT,
        ]
    )
    assert read_turn([HumanMessage("x"), answer]).messages[1].text == "words"


def test_nested_results_keep_their_text_and_images_in_order() -> None:
    result = {
        "type": "tool_result",
        "tool_use_id": "1",
        "content": [{"type": "text", "text": "one"}, block(), {"type": "text", "text": "two"}],
    }
    turn = read_turn([HumanMessage([TEXT, result])])
    assert turn.messages[0].parts == (
        TextPart("words"), TextPart("one"), ImagePart(0), TextPart("two"),
    )  # fmt: skip
    assert turn.images[0].block_index == 1


def test_base64_in_the_text_of_a_user_or_an_assistant_is_text() -> None:
    text = f"data:image/png;base64,{block()['base64']}"
    turn = read_turn([HumanMessage(text), AIMessage(text), SystemMessage(text)])
    assert [message.text for message in turn.messages] == [text] * 3
    assert not turn.images


def test_messages_read_the_same_after_serialisation() -> None:
    messages = [HumanMessage([TEXT, block()]), AIMessage("Hi"), HumanMessage("And now?")]
    assert read_turn(messages_from_dict(messages_to_dict(messages))).key() == (
        read_turn(messages).key()
    )


# -- what cannot be judged ------------------------------------------------------------------------

AUDIO = {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}


def test_skipped_media_leave_no_trace_in_the_text() -> None:
    turn = read_turn([HumanMessage([TEXT, AUDIO, block()])])
    assert turn.messages[0].parts == (TextPart("words"), ImagePart(0))
    (skipped,) = turn.skipped
    assert (skipped.kind, skipped.message_index, skipped.block_index) == ("audio", 0, 1)


def test_strict_raises_for_the_first_medium_with_its_position() -> None:
    messages = [
        HumanMessage([block()]),
        HumanMessage([TEXT, {"type": "image", "url": "/etc/passwd"}, AUDIO]),
    ]
    with pytest.raises(ForbiddenSource, match=r"message 1, block 1.*base64") as caught:
        read_turn(messages, strict=True)
    assert (caught.value.message_index, caught.value.block_index) == (1, 1)
    with pytest.raises(UnsupportedMedia):
        read_turn([HumanMessage([AUDIO])], strict=True)


@given(st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_only_the_libraries_own_errors_leave(roles: list[str]) -> None:
    try:
        turn = read_turn([ChatMessage("words", role=role) for role in roles])
    except GuardError:
        return
    assert len(turn.messages) == len(roles)


# -- the turn -------------------------------------------------------------------------------------


def read(*messages: BaseMessage) -> Turn:
    return read_turn(messages)


def test_the_query_is_all_user_text_since_the_last_answer() -> None:
    call = AIMessage("", tool_calls=[{"id": "1", "name": "f", "args": {}}])
    result = ToolMessage("42", tool_call_id="1")
    assert read(HumanMessage("a"), AIMessage("b"), HumanMessage("c")).query == "c"
    assert read(HumanMessage("a"), HumanMessage("b")).query == "a\nb"
    assert read(HumanMessage("a"), HumanMessage("b"), call, result).query == "a\nb"
    assert read(SystemMessage("x")).query == ""


def test_a_question_takes_the_place_of_the_words_after_the_last_image() -> None:
    turn = read(HumanMessage([TEXT, block(), {"type": "text", "text": "How?"}]))
    asked = turn.ask("Is it safe?")
    assert asked.messages[0].parts == (TextPart("words"), ImagePart(0), TextPart("Is it safe?"))
    assert asked.images == turn.images
    asked = read(HumanMessage("x"), AIMessage("y")).ask("Is it safe?")
    assert [m.text for m in asked.messages] == ["x", "y", "Is it safe?"]


def test_a_system_text_is_joined_to_the_one_there_is() -> None:
    assert read(HumanMessage("x")).with_system("s").messages[0].text == "s"
    joined = read(SystemMessage("a"), HumanMessage("x")).with_system("s")
    assert [m.text for m in joined.messages] == ["a\n\ns", "x"]
    shown = read(SystemMessage([TEXT, block()]), HumanMessage("x")).with_system("s")
    assert shown.messages[0].image_indices == (0,)
    assert shown.messages[0].text == "words\n\ns"


def test_answers_and_pixels_can_be_replaced() -> None:
    turn = read(HumanMessage([block(), TEXT]))
    other = Image.new("RGB", (5, 4), "white")
    assert turn.with_pixels([other]).pixels == (other,)
    assert turn.with_pixels([other]).key() == turn.key()
    assert turn.with_pixels([other]).images[0].file != turn.images[0].file
    with pytest.raises(ValueError):
        turn.with_pixels([])
    assert turn.with_answer("y").messages[-1].text == "y"


def call(**arguments: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"id": "1", "name": "f", "args": arguments}])


def test_the_key_changes_with_everything_the_model_sees() -> None:
    picture = HumanMessage([block(), TEXT])
    conversations: list[list[BaseMessage]] = [
        [SystemMessage("s"), picture, AIMessage("a")],
        [SystemMessage("t"), picture, AIMessage("a")],
        [SystemMessage("s"), HumanMessage([block("red"), TEXT]), AIMessage("a")],
        [SystemMessage("s"), HumanMessage([TEXT, block()]), AIMessage("a")],
        [SystemMessage("s"), picture, HumanMessage("a")],
        [SystemMessage("s"), HumanMessage([block(), TEXT], name="n"), AIMessage("a")],
        [call()],
        [call(a=[1])],
        [call(a=["1"])],
        [call(a=1)],
        [call(a=True)],
        [call(a={"1": 2})],
        [call(), ToolMessage("42", tool_call_id="1")],
        [call(), ToolMessage("42", tool_call_id="2")],
        [call(), ToolMessage("42", tool_call_id="1", artifact=base64.b64decode(block()["base64"]))],
    ]
    keys = [read_turn(messages).key() for messages in conversations]
    assert len(set(keys)) == len(keys)
    assert read_turn(conversations[0]).key() == keys[0]


def test_keys_of_arguments_have_a_type() -> None:
    def turn(arguments: dict[Any, Any]) -> Turn:
        return Turn((TurnMessage("assistant", (), (ToolCall("1", "f", {"a": arguments}),)),))

    assert turn({1: 2}).key() != turn({"1": 2}).key()


def test_the_module_loads_neither_langchain_nor_torch() -> None:
    code = (
        "import sys, safecode_guard.turns; "
        "print([m for m in ('langchain_core', 'torch', 'httpx', 'httpcore') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
