"""Commands of tools: messages in every form are judged, and the ones judged are withheld."""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Overwrite, Send
from pydantic import BaseModel
from safecode_guard_langchain import SafeCoDeMiddleware, VerdictState, guard_tools
from safecode_guard_langchain.outputs import Output
from safecode_guard_langchain.results import without_own_keys
from safecode_guard_langchain.testing import calls
from support import UNSAFE, judge_of, picture, png, script, shown_to

RED = picture(UNSAFE)
URL = f"data:image/png;base64,{png(UNSAFE)}"
SYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@dataclass
class Update:
    messages: list[Any]


class Model(BaseModel):
    messages: list[Any]


class State(MessagesState, VerdictState):
    note: str


def told(content: Any = "ok") -> ToolMessage:
    return ToolMessage(content, tool_call_id="call-1", name="look")


def constructor(content: Any) -> dict[str, Any]:
    id = ["langchain", "schema", "messages", "HumanMessage"]
    return {"lc": 1, "type": "constructor", "id": id, "kwargs": {"content": content}}


FORMS: dict[str, Callable[[], Any]] = {
    "role tool": lambda: [{"role": "tool", "content": [RED], "tool_call_id": "call-1"}],
    "role user": lambda: [{"role": "user", "content": [RED]}, told()],
    "type human": lambda: [{"type": "human", "content": [RED]}, told()],
    "pair": lambda: [("user", [RED]), told()],
    "list pair": lambda: [["user", [RED]], told()],
    "constructor": lambda: [constructor([RED]), told()],
    "message": lambda: [HumanMessage([RED]), told()],
    "text": lambda: [URL, told()],
    "text message": lambda: [HumanMessage(URL), told()],
    "text block": lambda: [HumanMessage([{"type": "text", "text": f"see {URL}"}]), told()],
}
UPDATES: dict[str, Callable[[Any], Any]] = {
    "mapping": lambda messages: {"messages": messages},
    "dataclass": Update,
    "model": lambda messages: Model(messages=messages),
}


def tool_that_gives(make: Callable[[], Any]) -> Any:
    @tool
    def look() -> Any:
        """Look."""
        return make()

    return look


def graph_of(model: Any, tools: list[Any]) -> Any:
    graph = StateGraph(State)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "model")
    ways = {True: "tools", False: END}
    graph.add_conditional_edges("model", lambda s: bool(s["messages"][-1].tool_calls), ways)
    graph.add_edge("tools", "model")
    return graph.compile()


def go(is_async: bool, app: Any) -> dict[str, Any]:
    given = {"messages": [HumanMessage("Look.")]}
    return asyncio.run(app.ainvoke(given)) if is_async else app.invoke(given)


@SYNC
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("name", FORMS)
def test_messages_are_withheld_in_every_form(name: str, update: str, is_async: bool) -> None:
    look = tool_that_gives(lambda: Command(update=UPDATES[update](FORMS[name]())))
    for guarded in (False, True):
        model = script(calls(("look", {})), "Done.")
        if guarded:
            middleware = [SafeCoDeMiddleware(judge_of())]
            app: Any = create_agent(model, [look], middleware=middleware)
        else:
            app = graph_of(model, guard_tools([look], judge_of()))
        state = go(is_async, app)
        assert not shown_to(model, UNSAFE)
        assert png(UNSAFE) not in str(state["messages"])
        assert state["messages"][-1].content == "Done."


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("name", FORMS)
def test_what_is_not_changed_stays_the_same_object(name: str, update: str) -> None:
    command = Command(update=UPDATES[update](FORMS[name]()))
    read = Output.of(command)
    assert read.pieces
    assert read.changed(lambda message: message) is command


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda message: Command(update=[("messages", [message])]),
        lambda message: Command(update={"messages": Overwrite([message])}),
        lambda message: Command(update={"messages": deque([message])}),
        lambda message: Command(goto=[Send("node", {"messages": [message]})]),
        lambda message: [Command(update={"messages": [message]})],
    ],
)
def test_messages_are_found_and_replaced_wherever_they_stand(wrapped: Any) -> None:
    read = Output.of(wrapped(("user", [RED])))
    assert [piece.judged.content for piece in read.pieces] == [[RED]]
    changed = read.changed(lambda message: HumanMessage("-"))
    assert png(UNSAFE) not in repr(changed)
    assert [piece.message.content for piece in Output.of(changed).pieces] == ["-"]


@SYNC
@pytest.mark.parametrize("value", [base64.b64decode(png(UNSAFE)), png(UNSAFE), {"a": [URL]}])
def test_a_picture_in_another_key_of_the_state_is_judged(value: Any, is_async: bool) -> None:
    look = tool_that_gives(lambda: Command(update={"messages": [told()], "note": value}))
    model = script(calls(("look", {})), "Done.")
    state = go(is_async, graph_of(model, guard_tools([look], judge_of())))
    assert png(UNSAFE) not in str(state)
    assert "\\x89PNG" not in str(state)
    assert "withheld" in str(state["note"])


def test_a_message_written_out_is_held_and_given_back() -> None:
    message = {"role": "user", "content": [RED], "id": "photo"}
    look = tool_that_gives(lambda: Command(update={"messages": [message, told()]}))
    model = script(calls(("look", {})), "Done.")
    policy = {"stages": {"tool_result": {"actions": {"unsafe": "review"}}}}
    guard = SafeCoDeMiddleware(judge_of(), policy=policy)
    agent = create_agent(model, [look], middleware=[guard], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    state = agent.invoke({"messages": [HumanMessage("Look.")]}, config)
    assert png(UNSAFE) not in str(state["messages"])
    state = agent.invoke(Command(resume={"type": "approve"}), config)
    assert [m.content for m in state["messages"] if m.id == "photo"] == [[RED]]


@SYNC
def test_no_tool_writes_to_the_guards_own_keys(is_async: bool) -> None:
    own = {"safecode_passed": {"mark": "digest"}, "safecode_verdicts": {"tool_call:x": {"a": 1}}}
    look = tool_that_gives(lambda: Command(update={"messages": [told()], **own}))
    model = script(calls(("look", {})), "Done.")
    state = go(is_async, graph_of(model, guard_tools([look], judge_of())))
    assert "mark" not in state["safecode_passed"]
    assert "tool_call:x" not in state["safecode_verdicts"]
    agent = create_agent(model, [look], middleware=[SafeCoDeMiddleware(judge_of())])
    assert "tool_call:x" not in go(is_async, agent)["safecode_verdicts"]
    command = Command(update={"messages": []})
    assert without_own_keys(command) is command
