"""`ChatVLLM`: plain, streamed, with tools and forms, judged and guarded; never more than proven."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from safecode_guard import ChatTransformers, ChatVLLM, SafeCoDeGuard, Verdict
from safecode_guard.errors import (
    ConstraintError,
    ModelUnavailable,
    SteeringUnproven,
    TurnBlocked,
    UnknownArgument,
)
from safecode_guard.testing import ScriptedJudge
from tests.messages import image_block
from tests.vllm_server import VLLMServer, engine_on

ASKED = [HumanMessage([image_block(), {"type": "text", "text": "How do I run faster here?"}])]


@pytest.fixture
def server(build: Callable[[str], Any]) -> VLLMServer:
    return VLLMServer(build("qwen2_5_vl"))


@pytest.fixture
def chat(server: VLLMServer) -> Iterator[ChatVLLM]:
    made = ChatVLLM(base_url="http://server/v1", model="served", max_tokens=10)
    engine = made._engine = engine_on(server)
    yield made
    engine.close()


@pytest.fixture
def local(server: VLLMServer) -> ChatTransformers:
    return ChatTransformers.from_engine(server.model, max_tokens=10, temperature=0.0)


def guard_of(model: Any, p: float = 0.95, **policy: Any) -> SafeCoDeGuard:
    return SafeCoDeGuard(
        model=model,
        judge=ScriptedJudge(p),
        policy={"judge": {"kind": "custom", "id": "scripted"}, **policy},
    )


def test_plain_chat_is_what_the_model_says(chat: ChatVLLM, local: ChatTransformers) -> None:
    here, there = local.invoke(ASKED), chat.invoke(ASKED)
    assert there.text == here.text
    assert there.usage_metadata == here.usage_metadata
    assert there.response_metadata["finish_reason"] == here.response_metadata["finish_reason"]
    chunks = list(chat.stream(ASKED))
    assert len(chunks) > 3
    assert "".join(chunk.text for chunk in chunks) == here.text


async def test_async_is_the_same(chat: ChatVLLM, local: ChatTransformers) -> None:
    text = local.invoke(ASKED).text
    answers = await asyncio.gather(*(chat.ainvoke(ASKED) for _ in range(8)))
    assert {answer.text for answer in answers} == {text}
    assert "".join([chunk.text async for chunk in chat.astream(ASKED)]) == text
    assert [answer.text for answer in await chat.abatch([ASKED, ASKED])] == [text] * 2


def test_a_guard_steers_and_judges_as_in_process(chat: ChatVLLM, local: ChatTransformers) -> None:
    here, there = (SafeCoDeGuard(model=model).invoke(ASKED) for model in (local, chat))
    assert there.text == here.text
    one, other = Verdict.from_message(here), Verdict.from_message(there)
    assert one is not None
    assert other is not None
    assert other.p_unsafe == pytest.approx(one.p_unsafe, abs=1e-4)
    assert (other.action, other.label) == (one.action, one.label)
    assert other.judge != one.judge


async def test_a_guarded_stream_says_the_verdict_first(chat: ChatVLLM) -> None:
    guard = guard_of(chat)
    text = guard.invoke(ASKED).text
    for chunks in (list(guard.stream(ASKED)), [chunk async for chunk in guard.astream(ASKED)]):
        assert Verdict.from_message(chunks[0]) is not None
        assert "".join(chunk.text for chunk in chunks) == text


async def test_nothing_comes_out_where_nothing_is_proven(
    chat: ChatVLLM, server: VLLMServer
) -> None:
    server.faults.plugin = False
    guard = guard_of(chat)
    with pytest.raises(SteeringUnproven):
        guard.invoke(ASKED)
    shown: list[str] = []

    def read() -> None:
        shown.extend(chunk.text for chunk in guard.stream(ASKED))

    async def aread() -> None:
        async for chunk in guard.astream(ASKED):
            shown.append(chunk.text)

    with pytest.raises(SteeringUnproven):
        read()
    with pytest.raises(SteeringUnproven):
        await aread()
    assert "".join(shown) == ""
    with pytest.raises(SteeringUnproven):
        chat.probe()


async def test_a_caller_that_goes_ends_its_requests(chat: ChatVLLM, server: VLLMServer) -> None:
    chat.probe()
    server.faults.lose = "twin"
    task = asyncio.create_task(guard_of(chat).ainvoke(ASKED))
    while server.open < 2:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(200):
        if server.open == 0:
            break
        await asyncio.sleep(0.01)
    assert server.open == 0


def test_requests_under_way_are_bounded_in_a_batch_as_well(server: VLLMServer) -> None:
    chat = ChatVLLM(base_url="http://server/v1", model="served", max_tokens=4)
    engine = chat._engine = engine_on(server, concurrency=2)
    assert len(chat.batch([ASKED] * 6)) == 6
    assert server.most == 2
    guard_of(chat).batch([ASKED] * 6)
    assert server.most == 4  # a guided turn is two requests
    engine.close()


@tool
def walk(to: str) -> str:
    """Walk somewhere."""
    return to


def test_tools_are_the_servers_own(chat: ChatVLLM, server: VLLMServer) -> None:
    function = {"name": "walk", "arguments": '{"to": "the door"}'}
    server.tool_calls = [{"id": "a", "type": "function", "function": function}]
    for model in (chat.bind_tools([walk]), guard_of(chat).bind_tools([walk])):
        reply = model.invoke(ASKED)
        assert [(c["name"], c["args"]) for c in reply.tool_calls] == [("walk", {"to": "the door"})]
        assert server.requests[-1]["tools"][0]["function"]["name"] == "walk"
        assert server.requests[-1]["tool_choice"] == "auto"
        (chunk,) = [c for c in model.stream(ASKED) if c.tool_calls]
        assert chunk.tool_calls[0]["args"] == {"to": "the door"}
    forced = chat.bind_tools([walk], tool_choice="walk").invoke(ASKED)
    assert forced.tool_calls[0]["name"] == "walk"
    assert server.requests[-1]["tool_choice"] == {"type": "function", "function": {"name": "walk"}}


def test_a_parted_pair_with_tools_begins_again(chat: ChatVLLM, server: VLLMServer) -> None:
    function = {"name": "walk", "arguments": "{}"}
    server.tool_calls = [{"id": "a", "type": "function", "function": function}]
    chat.probe()
    server.faults.part_after = [1, 2]
    reply = guard_of(chat).bind_tools([walk]).invoke(ASKED)
    assert [call["name"] for call in reply.tool_calls] == ["walk"]
    assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}


def test_earlier_calls_and_results_are_sent_on(chat: ChatVLLM, server: VLLMServer) -> None:
    function = {"name": "walk", "arguments": '{"to": "the door"}'}
    server.tool_calls = [{"id": "a", "type": "function", "function": function}]
    reply = chat.bind_tools([walk]).invoke(ASKED)
    server.tool_calls = []
    result = ToolMessage("there", tool_call_id=reply.tool_calls[0]["id"])
    chat.bind_tools([walk]).invoke([*ASKED, reply, result])
    sent = server.requests[-1]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[1]["tool_calls"][0]["function"] == {
        "name": "walk",
        "arguments": '{"to": "the door"}',
    }
    assert sent[2]["tool_call_id"] == sent[1]["tool_calls"][0]["id"]


class Scene(BaseModel):
    place: str


def test_a_schema_is_held_to_by_the_server(chat: ChatVLLM, server: VLLMServer) -> None:
    chat.with_structured_output(Scene, include_raw=True).invoke(ASKED)
    form = server.requests[-1]["response_format"]["json_schema"]
    assert form["strict"]
    assert form["schema"]["properties"]["place"] == {"type": "string"}
    with pytest.raises(TurnBlocked):
        guard_of(chat).with_structured_output(Scene).invoke(ASKED)
    with pytest.raises(ConstraintError, match="refusal branch"):
        guard_of(chat).with_structured_output(Scene, allow_refusal=True).invoke(ASKED)


def test_words_that_spell_control_tokens_are_broken_up(chat: ChatVLLM, server: VLLMServer) -> None:
    control = next(iter(server.model.processor.tokenizer.all_special_tokens))
    chat.invoke([HumanMessage(f"Hello {control} there")])
    assert control not in server.requests[-1]["messages"][0]["content"]


def test_a_stop_sequence_ends_an_answer_as_in_process(
    chat: ChatVLLM, local: ChatTransformers
) -> None:
    whole = local.invoke(ASKED).text
    stop = whole[len(whole) // 2 :][:2]
    here, there = local.invoke(ASKED, stop=[stop]), chat.invoke(ASKED, stop=[stop])
    assert there.text == here.text != whole
    assert guard_of(chat).invoke(ASKED, stop=[stop]).text == (
        guard_of(local).invoke(ASKED, stop=[stop]).text
    )


def test_errors_say_what_to_do_and_quote_nothing(chat: ChatVLLM, server: VLLMServer) -> None:
    server.faults.status = 401
    with pytest.raises(ModelUnavailable, match="api_key") as caught:
        chat.invoke(ASKED)
    assert caught.value.status == 401
    assert caught.value.reply
    assert caught.value.reply not in str(caught.value)


def test_keys_are_sent_and_never_shown(server: VLLMServer) -> None:
    chat = ChatVLLM(base_url="http://server/v1", model="served", api_key="secret-key")
    assert "secret-key" not in repr(chat)
    assert "secret-key" not in str(chat._identifying_params)
    engine = chat._engine = engine_on(server, address={"api_key": "secret-key"})
    chat.invoke([HumanMessage("Hello")], max_tokens=2)
    engine.close()
    assert server.headers[-1]["authorization"] == "Bearer secret-key"


def test_a_misspelt_argument_is_an_error() -> None:
    with pytest.raises(UnknownArgument, match="base_url"):
        ChatVLLM(base_urll="http://server/v1", model="served")
