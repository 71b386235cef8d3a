"""Errors of tools: whoever handles them further out shows no picture that nobody judged."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ToolRetryMiddleware
from langchain_core.messages import HumanMessage
from langchain_core.tools import StructuredTool, ToolException, tool
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode
from pydantic import BaseModel
from safecode_guard_langchain import SafeCoDeMiddleware, guard_tools
from safecode_guard_langchain.testing import calls
from support import UNSAFE, judge_of, png, script
from test_nodes import State

SYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
URL = f"data:image/png;base64,{png(UNSAFE)}"


class Odd(Exception):
    def __init__(self, data: bytes, *, code: int) -> None:
        super().__init__(data)


ERRORS: dict[str, Any] = {
    "words": lambda: ValueError(f"seen: {URL}"),
    "tool": lambda: ToolException(URL),
    "args": lambda: RuntimeError("seen", {"shot": base64.b64decode(png(UNSAFE))}),
    "odd": lambda: Odd(base64.b64decode(png(UNSAFE)), code=3),
}


def raising(error: Any, **fields: Any) -> Any:
    @tool
    def look() -> str:
        """Look."""
        raise error()

    for name, value in fields.items():
        setattr(look, name, value)
    return look


def in_graph(is_async: bool, look: Any, args: Any = None, **fields: Any) -> dict[str, Any]:
    graph = StateGraph(State)
    graph.add_node("tools", ToolNode(guard_tools([look], judge_of()), **fields))
    graph.add_edge(START, "tools")
    given = {"messages": [HumanMessage("Look."), calls(("look", args or {}))]}
    app = graph.compile()
    return asyncio.run(app.ainvoke(given)) if is_async else app.invoke(given)


@SYNC
@pytest.mark.parametrize("name", ERRORS)
def test_a_node_that_handles_errors_shows_no_picture(name: str, is_async: bool) -> None:
    state = in_graph(is_async, raising(ERRORS[name]), handle_tool_errors=True)
    assert png(UNSAFE) not in str(state)
    assert "x89PNG" not in str(state)
    assert "withheld" in state["messages"][-1].content


@SYNC
def test_an_error_that_nobody_handles_keeps_its_kind_and_says_only_what_may_be_shown(
    is_async: bool,
) -> None:
    with pytest.raises(ValueError, match="withheld") as raised:
        in_graph(is_async, raising(ERRORS["words"]))
    assert png(UNSAFE) not in str(raised.value)
    error = KeyError("no such thing")
    with pytest.raises(KeyError) as same:
        in_graph(is_async, raising(lambda: error))
    assert same.value is error


@SYNC
@pytest.mark.parametrize("guard_first", [True, False])
def test_a_middleware_that_goes_on_after_errors_shows_no_picture(
    guard_first: bool, is_async: bool
) -> None:
    retry = ToolRetryMiddleware(max_retries=1, initial_delay=0, on_failure="continue")
    guard = SafeCoDeMiddleware(judge_of())
    order = [guard, retry] if guard_first else [retry, guard]
    model = script(calls(("look", {})), "Done.")
    agent = create_agent(model, [raising(ERRORS["words"])], middleware=order)
    given = {"messages": [HumanMessage("Look.")]}
    state = asyncio.run(agent.ainvoke(given)) if is_async else agent.invoke(given)
    assert png(UNSAFE) not in str(state)


class Args(BaseModel):
    x: int


@SYNC
@pytest.mark.parametrize("says", [URL, "not a number", True])
def test_what_a_tool_says_of_invalid_arguments_is_judged(says: Any, is_async: bool) -> None:
    asked: list[int] = []

    def handle(error: Any) -> str:
        asked.append(1)
        return says

    look = StructuredTool.from_function(
        lambda x: "ok", name="look", description="Looks.", args_schema=Args,
        handle_validation_error=says if says is True else handle,
    )  # fmt: skip
    told = in_graph(is_async, look, {"x": "no"})["messages"][-1]
    assert png(UNSAFE) not in str(told)
    assert told.status == "error"
    assert len(asked) <= 1  # what is judged is what is shown
    if says is True:
        assert told.content == "Tool input validation error"
    elif says != URL:
        assert told.content == says
