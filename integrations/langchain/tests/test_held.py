"""Results held for review: asked about in a node of their own; the tool runs once."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from safecode_guard_langchain import SafeCoDeMiddleware, verdicts_in
from safecode_guard_langchain.testing import calls, results
from support import UNSAFE, Disk, asked, judge_of, picture, png, script, shown_to

from safecode_guard import Policy

CONFIG: dict[str, Any] = {"configurable": {"thread_id": "1"}}
SYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
REVIEW = Policy(stages={"tool_result": {"actions": {"unsafe": "review"}}})
CONTENT = [{"type": "text", "text": "seen"}, picture(UNSAFE)]


def agent_for(disk: Disk, judge: Any, gives: Any = CONTENT, **fields: Any) -> tuple[Any, Any]:
    model = script(calls(("act", {"x": 1})), "Done.")
    tool = disk.tool(gives=gives, **fields)
    middleware = SafeCoDeMiddleware(judge, policy=REVIEW)
    saver = InMemorySaver()
    return create_agent(model, [tool], middleware=[middleware], checkpointer=saver), model


def go(is_async: bool, agent: Any, given: Any) -> dict[str, Any]:
    if is_async:
        return asyncio.run(agent.ainvoke(given, CONFIG))
    return agent.invoke(given, CONFIG)


START = {"messages": [HumanMessage("Go.")]}


@SYNC
def test_a_held_result_waits_and_the_model_is_not_shown_it(is_async: bool, disk: Disk) -> None:
    agent, model = agent_for(disk, judge_of())
    state = go(is_async, agent, START)
    [question] = state["__interrupt__"]
    assert question.value["type"] == "tool_result_approval"
    assert question.value["name"] == "act"
    assert question.value["args"] == {"x": 1}
    assert png(UNSAFE) not in str(question.value)
    assert "held for review" in str(results(state["messages"])["call-1"].content)
    assert len(model.shown) == 1


@SYNC
def test_approval_gives_back_exactly_what_the_tool_returned(is_async: bool, disk: Disk) -> None:
    judge = judge_of()
    agent, model = agent_for(disk, judge)
    go(is_async, agent, START)
    state = go(is_async, agent, Command(resume={"type": "approve", "by": "ada"}))
    told = results(state["messages"])["call-1"]
    assert told.content == CONTENT
    assert told.status == "success"
    assert disk.ran == ["act-1"]
    assert shown_to(model, UNSAFE)
    assert len(asked(judge, "tool_result")) == 1
    [verdict] = verdicts_in(state, "tool_result")
    assert (verdict.review.by, verdict.standing) == ("ada", "pass")
    assert asked(judge, "input") == []  # the picture has passed; the turn had none


@SYNC
def test_an_artifact_comes_back_as_well(is_async: bool, disk: Disk) -> None:
    pair = ("seen", {"photo": picture(UNSAFE)})
    agent, _ = agent_for(disk, judge_of(), gives=pair, response_format="content_and_artifact")
    state = go(is_async, agent, START)
    assert results(state["messages"])["call-1"].artifact is None
    state = go(is_async, agent, Command(resume={"type": "approve"}))
    told = results(state["messages"])["call-1"]
    assert (told.content, told.artifact) == pair


@SYNC
def test_rejection_keeps_the_words_and_withholds_the_picture(is_async: bool, disk: Disk) -> None:
    agent, model = agent_for(disk, judge_of())
    go(is_async, agent, START)
    answer = {"type": "reject", "by": "ada", "message": "(a face)"}
    state = go(is_async, agent, Command(resume=answer))
    told = results(state["messages"])["call-1"]
    assert told.content[0] == CONTENT[0]
    assert told.content[1]["text"] == "[withheld: rejected by ada (a face)]"
    assert told.status == "error"
    assert not shown_to(model, UNSAFE)
    assert disk.ran == ["act-1"]


@SYNC
def test_an_edit_is_no_answer_to_a_result(is_async: bool, disk: Disk) -> None:
    agent, _ = agent_for(disk, judge_of())
    go(is_async, agent, START)
    edit = {"type": "edit", "edited_action": {"name": "act", "args": {}}}
    state = go(is_async, agent, Command(resume=edit))
    assert "could not be read" in state["__interrupt__"][0].value["description"]


def test_messages_of_a_command_are_held_and_given_back() -> None:
    model = script(calls(("look", {})), "Done.")

    @tool
    def look(id: Annotated[str, InjectedToolCallId]) -> Any:
        """Look."""
        photo = HumanMessage([picture(UNSAFE)], id="photo")
        return Command(update={"messages": [ToolMessage("see", tool_call_id=id), photo]})

    agent = create_agent(
        model,
        [look],
        middleware=[SafeCoDeMiddleware(judge_of(), policy=REVIEW)],
        checkpointer=InMemorySaver(),
    )
    state = agent.invoke(START, CONFIG)
    assert png(UNSAFE) not in str(state["messages"])
    state = agent.invoke(Command(resume={"type": "approve"}), CONFIG)
    assert [m.content for m in state["messages"] if m.id == "photo"] == [[picture(UNSAFE)]]


def test_a_tool_that_returns_directly_is_asked_about_before_the_end(disk: Disk) -> None:
    agent, model = agent_for(disk, judge_of(), return_direct=True)
    state = agent.invoke(START, CONFIG)
    assert "__interrupt__" in state
    state = agent.invoke(Command(resume={"type": "approve"}), CONFIG)
    assert state["messages"][-1].content == CONTENT
    assert len(model.shown) == 1


def test_without_a_checkpointer_it_is_withheld_and_the_reason_is_told(disk: Disk) -> None:
    model = script(calls(("act", {"x": 1})), "Done.")
    middleware = SafeCoDeMiddleware(judge_of(), policy=REVIEW)
    agent = create_agent(model, [disk.tool(gives=CONTENT)], middleware=[middleware])
    state = agent.invoke(START)
    told = results(state["messages"])["call-1"]
    assert "nobody to ask" in told.content[1]["text"]
    assert not shown_to(model, UNSAFE)


def test_approved_media_that_no_judge_can_look_at_do_not_hold_up_what_follows(disk: Disk) -> None:
    policy = Policy(stages={"tool_result": {"actions": {"unjudgeable": "review"}}})
    sound = [{"type": "file", "mime_type": "audio/wav", "base64": "AAAA"}]
    model = script(calls(("act", {"x": 1})), calls(("stop", {"x": 2}), first_id="next"), "Done.")
    agent = create_agent(
        model,
        [disk.tool(gives=sound), disk.tool("stop")],
        middleware=[SafeCoDeMiddleware(judge_of(), policy=policy)],
        checkpointer=InMemorySaver(),
    )
    agent.invoke(START, CONFIG)
    state = agent.invoke(Command(resume={"type": "approve"}), CONFIG)
    assert disk.ran == ["act-1", "stop-2"]
    assert state["messages"][-1].content == "Done."


@pytest.mark.parametrize("mode", ["values", "updates", "debug", "tasks", "checkpoints", "custom"])
def test_no_stream_carries_what_is_held_before_somebody_has_decided(mode: Any, disk: Disk) -> None:
    agent, _ = agent_for(disk, judge_of())
    assert png(UNSAFE) not in str(list(agent.stream(START, CONFIG, stream_mode=mode)))

    async def streamed() -> list[Any]:
        other, _ = agent_for(disk, judge_of())
        return [event async for event in other.astream(START, CONFIG, stream_mode=mode)]

    assert png(UNSAFE) not in str(asyncio.run(streamed()))
