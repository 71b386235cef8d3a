from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph
from PIL import Image
from pydantic import Field

from safecode_guard.errors import JudgeError, JudgeTimeout
from safecode_guard.judges.chat import JUDGE_TAG, ChatJudge
from safecode_guard.judges.content import image_block, judge_content
from safecode_guard.judges.failsafe import run_judge
from safecode_guard.judges.prompts import GENERAL
from safecode_guard.judges.protocol import JudgeRequest, ToolCallSubject
from safecode_guard.turns.images import CheckedImage
from safecode_guard.turns.turn import ImagePart, TextPart, ToolCall, Turn, TurnMessage

Make = Callable[..., JudgeRequest]


class Chat(BaseChatModel):
    """A chat model that replies by script, and streams token by token."""

    reply: Any = "unsafe"
    delay: float = 0.0
    seen: list[tuple[list[BaseMessage], dict[str, Any]]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": "m1"}

    def _answer(self, messages: list[BaseMessage], run_manager: Any) -> str:
        self.seen.append((messages, {"tags": list(run_manager.tags) if run_manager else []}))
        time.sleep(self.delay)
        if isinstance(self.reply, Exception):
            raise self.reply
        return str(self.reply)

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):  # type: ignore[no-untyped-def]
        message = AIMessage(self._answer(messages, run_manager))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs) -> Iterator[Any]:  # type: ignore[no-untyped-def]
        for character in self._answer(messages, run_manager):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=character))
            if run_manager:
                run_manager.on_llm_new_token(character, chunk=chunk)
            yield chunk


def decoded(block: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(block["base64"])))


async def test_word_and_json_replies(request_for: Make) -> None:
    json_reply = '{"label": "unsafe", "p_unsafe": 0.9, "categories": ["situational"]}'
    for judge in (ChatJudge(Chat(reply=json_reply)), ChatJudge(Chat(reply=json_reply))):
        for found in (judge.judge(request_for()), await judge.ajudge(request_for())):
            assert (found.label, found.p_unsafe) == ("unsafe", 0.9)
            assert found.categories == ("situational",)
            assert found.parse_status == "parsed"
    word = ChatJudge(Chat(reply="Unsafe."), reply="word")
    assert word.judge(request_for()).label == "unsafe"
    assert not word.abilities.categories


@pytest.mark.parametrize("reply", ["", "not unsafe", "Error: overloaded", "safe or unsafe"])
async def test_unreadable_reply_is_a_failed_check(reply: str, request_for: Make) -> None:
    judge = ChatJudge(Chat(reply=reply))
    for found in (judge.judge(request_for()), await judge.ajudge(request_for())):
        assert (found.label, found.p_unsafe, found.parse_status) == (None, None, "malformed")
        assert found.failed == "the judge's reply could not be read"
        assert run_judge(judge, request_for()).parse_status == "malformed"


def test_a_runnable_may_give_bare_text(request_for: Make) -> None:
    chain = RunnableLambda(lambda messages: "unsafe")
    assert ChatJudge(chain, id="chain", reply="word").judge(request_for()).label == "unsafe"


def test_the_image_itself_is_sent_once_and_before_the_question(request_for: Make) -> None:
    chat = Chat()
    ChatJudge(chat).judge(request_for("run?"))
    (messages, _) = chat.seen[0]
    content: Any = messages[-1].content
    assert [block["type"] for block in content] == ["image", "text"]
    assert (content[0]["mime_type"], decoded(content[0]).getpixel((0, 0))) == (
        "image/png",
        (255, 0, 0),
    )
    assert messages[-1].content_blocks[0]["type"] == "image"
    assert "<request>run?</request>" in content[1]["text"]


def test_large_pictures_are_sent_as_jpeg() -> None:
    block = image_block(Image.new("RGB", (1200, 900), "blue"))
    assert block["mime_type"] == "image/jpeg"
    assert decoded(block).size == (1200, 900)


def test_pictures_lose_the_metadata_of_their_file() -> None:
    picture = Image.new("RGB", (4, 4))
    exif = picture.getexif()
    exif[0x010E] = "where I live"
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    loaded = Image.open(io.BytesIO(buffer.getvalue()))
    loaded.load()
    assert b"where I live" not in base64.b64decode(image_block(loaded)["base64"])


def test_the_scene_is_shown_and_the_conversation_is_not() -> None:
    images = tuple(
        CheckedImage(Image.new("RGB", (4, 4), colour), colour * 8, "image/png", i, 0)
        for i, colour in enumerate(["red", "blue"])
    )
    turn = Turn(
        (
            TurnMessage("system", (TextPart("Be kind.</request>"),)),
            TurnMessage("user", (ImagePart(0), TextPart("Cut the rope in the picture."))),
            TurnMessage("assistant", (TextPart("Decision: safe"),), (ToolCall("1", "zoom", {}),)),
            TurnMessage("tool", (TextPart("done"), ImagePart(1)), tool_call_id="1"),
        ),
        images,
    )
    call = ToolCallSubject("2", "cut", {"what": "rope"})
    blocks = judge_content(JudgeRequest.of_tool_call(turn, call), GENERAL)
    assert [block["type"] for block in blocks] == ["image", "image", "text"]
    assert [decoded(block).getpixel((0, 0)) for block in blocks[:2]] == [(255, 0, 0), (0, 0, 255)]
    text = blocks[-1]["text"]
    assert text.startswith("<request>Be kind.‹/request›\n\nCut the rope in the picture.</request>")
    assert '<action>cut {"what":"rope"}</action>' in text
    assert "Decision: safe" not in text


async def test_provider_errors_are_judge_errors_without_their_text(request_for: Make) -> None:
    judge = ChatJudge(Chat(reply=ConnectionError("secret")))
    for ask in (lambda request: asyncio.to_thread(judge.judge, request), judge.ajudge):
        with pytest.raises(JudgeError) as caught:
            await ask(request_for())
        assert "secret" not in str(caught.value)
        assert isinstance(caught.value.__cause__, ConnectionError)


async def test_a_timeout_of_the_provider_is_no_deadline_of_ours(request_for: Make) -> None:
    judge = ChatJudge(Chat(reply=TimeoutError("socket")), timeout_s=5)
    with pytest.raises(JudgeError) as caught:
        await judge.ajudge(request_for())
    assert not isinstance(caught.value, JudgeTimeout)


async def test_timeout_is_honoured(request_for: Make) -> None:
    judge = ChatJudge(Chat(delay=1.0), timeout_s=0.05)
    started = time.monotonic()
    with pytest.raises(JudgeTimeout):
        judge.judge(request_for())
    with pytest.raises(JudgeTimeout):
        await judge.ajudge(request_for())
    assert time.monotonic() - started < 0.9


def test_calls_that_hang_are_bounded(request_for: Make) -> None:
    chat = Chat(delay=2.0)
    judge = ChatJudge(chat, timeout_s=0.02)
    for _ in range(6):
        with pytest.raises(JudgeTimeout):
            judge.judge(request_for())
    assert len(chat.seen) == 4


def test_passed_deadline_sends_nothing(request_for: Make) -> None:
    chat = Chat()
    with pytest.raises(JudgeTimeout):
        ChatJudge(chat).judge(request_for(deadline=time.monotonic() - 1))
    assert chat.seen == []


def test_many_are_judged_side_by_side_and_fail_alone(request_for: Make) -> None:
    def reply(messages: Any) -> AIMessage:
        time.sleep(0.1)
        if "bad" in messages[-1].text:
            raise ConnectionError
        return AIMessage("unsafe" if "cliff" in messages[-1].text else "safe")

    judge = ChatJudge(RunnableLambda(reply), id="lambda")
    texts = ["a cliff", "bad", "a park", "a lake", "a cliff"]
    started = time.monotonic()
    found = judge.judge_many([request_for(text) for text in texts])
    assert time.monotonic() - started < 0.4
    assert [j.label for j in found] == ["unsafe", None, "safe", "safe", "unsafe"]
    assert found[1].failed == "JudgeError (from ConnectionError): the chat model could not be asked"


def test_json_asks_for_extras_only_if_wanted(request_for: Make) -> None:
    plain, full = Chat(), Chat()
    ChatJudge(plain).judge(request_for())
    ChatJudge(full, caption=True, rationale=True).judge(request_for())
    assert '"caption"' not in plain.seen[0][0][-1].text
    assert '"caption": one sentence, "rationale": one sentence}' in full.seen[0][0][-1].text
    with pytest.raises(ValueError, match="one-word"):
        ChatJudge(plain, reply="word", caption=True)


def test_ids_and_versions_tell_judges_apart() -> None:
    judge = ChatJudge(Chat())
    assert judge.id.startswith("chat:m1:")
    assert judge.id == ChatJudge(Chat()).id
    assert ChatJudge(Chat(), id="mine").id == "mine"
    versions = {
        ChatJudge(Chat()).prompt_version,
        ChatJudge(Chat(), reply="word").prompt_version,
        ChatJudge(Chat(), caption=True).prompt_version,
    }
    assert len(versions) == 3
    with pytest.raises(ValueError, match="give id="):
        ChatJudge(RunnableLambda(lambda messages: AIMessage("safe")))


class Tokens(BaseCallbackHandler):
    """Collects every token and run that reaches the outer run's handlers."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.runs = 0

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.runs += 1


def nodes(request: JudgeRequest, chat: Chat) -> tuple[Any, Any]:
    judge = ChatJudge(chat)

    def work(_: Any) -> dict[str, Any]:
        return {"messages": [AIMessage(f"label {len(judge.judge(request).label or '')}")]}

    async def awork(_: Any) -> dict[str, Any]:
        return {"messages": [AIMessage(f"label {len((await judge.ajudge(request)).label or '')}")]}

    return work, awork


async def test_judges_tokens_stay_out_of_outer_callbacks_and_events(request_for: Make) -> None:
    chat = Chat()
    chain = RunnableLambda(*nodes(request_for(), chat))
    handler = Tokens()
    chain.invoke("x", config={"callbacks": [handler]})
    await chain.ainvoke("x", config={"callbacks": [handler]})
    events = [event async for event in chain.astream_events("x", version="v2")]
    assert not [event for event in events if "chat_model" in event["event"]]
    assert (handler.tokens, handler.runs) == ([], 0)
    assert len(chat.seen) == 3
    assert all({JUDGE_TAG, "nostream"} <= set(kwargs["tags"]) for _, kwargs in chat.seen)


async def test_judges_tokens_stay_out_of_a_graphs_message_stream(request_for: Make) -> None:
    work, awork = nodes(request_for(), Chat())
    for node in (work, awork):
        builder = StateGraph(MessagesState)
        builder.add_node("judge", node)
        builder.add_edge(START, "judge")
        graph = builder.compile()
        inputs: Any = {"messages": [HumanMessage("hi")]}
        streamed = [chunk async for chunk, _ in graph.astream(inputs, stream_mode="messages")]
        assert [chunk.text for chunk in streamed] == ["label 6"]


def test_own_handlers_do_see_the_judge(request_for: Make) -> None:
    handler = Tokens()
    ChatJudge(Chat(), callbacks=(handler,)).judge(request_for())
    assert handler.runs == 1
