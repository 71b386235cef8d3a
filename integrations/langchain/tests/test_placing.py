"""Where a call is made: the conversation is found, or the call cannot be judged; by hand, too."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolArg, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.types import Command
from safecode_guard_langchain import SafeCoDeMiddleware, guard_tools, within_scene
from safecode_guard_langchain.testing import ScriptedChatModel, calls
from support import UNSAFE, Disk, judge_of, script, shows, user
from typing_extensions import TypedDict

from safecode_guard.testing import ScriptedJudge

SYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
CONFIG: dict[str, Any] = {"configurable": {"thread_id": "1"}}


class Chat(TypedDict):
    chat: Annotated[list[Any], add_messages]


def call() -> Any:
    return calls(("act", {"x": 1}))


def crimson() -> ScriptedJudge:
    return ScriptedJudge(lambda r: 0.9 if shows(r, UNSAFE) else 0.1)


def go(is_async: bool, app: Any, given: Any, *config: Any) -> Any:
    return asyncio.run(app.ainvoke(given, *config)) if is_async else app.invoke(given, *config)


@SYNC
@pytest.mark.parametrize(("colour", "ran"), [(UNSAFE, []), ("navy", ["act-1"])])
def test_messages_under_another_key_are_the_scene(
    colour: str, ran: list[str], is_async: bool, disk: Disk
) -> None:
    graph = StateGraph(Chat)
    graph.add_node("act", ToolNode(guard_tools([disk.tool()], crimson()), messages_key="chat"))
    graph.add_edge(START, "act")
    go(is_async, graph.compile(), {"chat": [user("Go.", colour), call()]})
    assert disk.ran == ran


@SYNC
@pytest.mark.parametrize("unjudgeable", ["block", "review"])
def test_without_a_conversation_the_policy_for_the_unjudgeable_decides(
    unjudgeable: str, is_async: bool, disk: Disk
) -> None:
    policy = {"actions": {"unjudgeable": unjudgeable}}
    node = ToolNode(guard_tools([disk.tool()], judge_of(), policy))
    graph = StateGraph(Chat)
    graph.add_node("act", lambda state: {"chat": node.invoke([state["chat"][-1]])})
    graph.add_edge(START, "act")
    told = go(is_async, graph.compile(), {"chat": [user("Go.", UNSAFE), call()]})["chat"][-1]
    assert disk.ran == []
    assert "within_scene" in told.content
    assert ("held for review" in told.content) == (unjudgeable == "review")


@SYNC
def test_by_hand_a_call_is_judged_in_its_callers_scene_or_as_words(
    is_async: bool, disk: Disk
) -> None:
    judge = crimson()
    [guarded] = guard_tools([disk.tool()], judge)
    with within_scene([user("Go.", UNSAFE)]):
        assert "Not run" in go(is_async, guarded, {"x": 1})
    assert go(is_async, guarded, {"x": 2}) == "did act 2"
    assert disk.ran == ["act-2"]
    assert len(judge.requests[-1].scene.images) == 0


@SYNC
def test_hidden_arguments_given_by_hand_are_judged(is_async: bool) -> None:
    ran: list[int] = []

    @tool
    def move(
        to: str,
        state: Annotated[dict[str, Any], InjectedState],
        force: Annotated[int, InjectedToolArg] = 1,
    ) -> str:
        """Move."""
        ran.append(force)
        return "ok"

    judge = judge_of(calls=lambda name, args: 0.9 if args.get("force", 1) > 100 else 0.1)
    [guarded] = guard_tools([move], judge)
    assert "Not run" in go(is_async, guarded, {"to": "door", "force": 9000, "state": {}})
    assert go(is_async, guarded, {"to": "door", "force": 2, "state": {}}) == "ok"
    assert ran == [2]
    assert [r.tool_call.arguments for r in judge.requests if r.tool_call][-1] == {
        "to": "door",
        "force": 2,
    }


@SYNC
def test_an_approval_is_for_one_run(is_async: bool, disk: Disk) -> None:
    def again(messages: list[Any]) -> Any:
        return call() if sum(m.type == "tool" for m in messages) < 3 else "Done."

    judge = judge_of(calls=lambda name, args: 0.5)
    guard = SafeCoDeMiddleware(judge)
    model = ScriptedChatModel(replies=again)
    agent = create_agent(model, [disk.tool()], middleware=[guard], checkpointer=InMemorySaver())
    go(is_async, agent, {"messages": [HumanMessage("Go.")]}, CONFIG)
    for runs in (1, 2):
        state = go(is_async, agent, Command(resume={"type": "approve"}), CONFIG)
        assert disk.ran == ["act-1"] * runs
        assert state["__interrupt__"]


@SYNC
@pytest.mark.parametrize("with_config", [False, True])
def test_a_tool_that_a_middleware_runs_itself_is_judged(
    with_config: bool, is_async: bool, disk: Disk
) -> None:
    bomb = disk.tool("bomb")

    class Redirects(AgentMiddleware):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            config = [request.runtime.config] if with_config else []
            return ToolMessage(bomb.invoke({"x": 1}, *config), tool_call_id="call-1")

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            config = [request.runtime.config] if with_config else []
            return ToolMessage(await bomb.ainvoke({"x": 1}, *config), tool_call_id="call-1")

    judge = judge_of(calls=lambda name, args: 0.9 if name == "bomb" else 0.1)
    order = [SafeCoDeMiddleware(judge), Redirects()]
    agent = create_agent(script(call(), "Done."), [disk.tool()], middleware=order)
    go(is_async, agent, {"messages": [HumanMessage("Go.")]})
    assert disk.ran == []
