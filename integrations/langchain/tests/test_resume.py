"""Killed between judging and running: what resumes runs nothing unjudged, judges none twice."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt
from safecode_guard_langchain import SafeCoDeMiddleware, guard_tools, verdicts_in
from safecode_guard_langchain.testing import calls, results
from support import Disk, asked, judge_of, picture, script, user
from test_nodes import State

from safecode_guard import JudgeError
from safecode_guard.testing import ScriptedJudge

CONFIG: dict[str, Any] = {"configurable": {"thread_id": "1"}}


class Killed(BaseException):
    """What a process that dies looks like from inside: nothing catches it."""


class Kill(AgentMiddleware):
    """Dies at a point of the loop, the first time it gets there."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at, self.alive = at, True

    def die(self, at: str) -> None:
        if self.alive and at == self.at:
            self.alive = False
            raise Killed

    def before_model(self, state: Any, runtime: Any) -> None:
        self.die("before the model")

    def after_model(self, state: Any, runtime: Any) -> None:
        self.die("after the model")

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        self.die("before the tool")
        output = handler(request)
        self.die("after the tool")
        return output


def unsafe_twos(name: str, args: dict[str, Any]) -> float:
    return 0.9 if args.get("x") == 2 else 0.1


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("at", ["after the model", "before the tool", "after the tool"])
@pytest.mark.parametrize("guard_first", [True, False])
def test_nothing_unjudged_runs_and_no_call_is_judged_twice(
    at: str, durability: Any, guard_first: bool, tmp_path: Path, disk: Disk
) -> None:
    """Each life has a judge and a memory of its own: what is known comes from the checkpoint."""
    kill = Kill(at)

    def agent_in(saver: Any) -> tuple[Any, Any]:
        judge = judge_of(calls=unsafe_twos)
        guard = SafeCoDeMiddleware(judge)
        order = [guard, kill] if guard_first else [kill, guard]
        model = script(calls(("act", {"x": 1}), ("act", {"x": 2})), "Done.")
        return create_agent(model, [disk.tool()], middleware=order, checkpointer=saver), judge

    path = str(tmp_path / "checkpoints.sqlite")
    with SqliteSaver.from_conn_string(path) as saver:
        agent, _ = agent_in(saver)
        with pytest.raises(Killed):
            agent.invoke({"messages": [user("Go.", "navy")]}, CONFIG, durability=durability)
    with SqliteSaver.from_conn_string(path) as saver:
        agent, second = agent_in(saver)
        state = agent.invoke(None, CONFIG, durability=durability)
    assert "act-2" not in disk.ran
    assert "act-1" in disk.ran
    assert asked(second, "input") == []
    judged = [r.tool_call.arguments["x"] for r in asked(second, "tool_call")]
    if at != "after the model" or not guard_first:  # the verdicts had been checkpointed
        assert judged == []
    assert results(state["messages"])["call-2"].status == "error"
    assert state["messages"][-1].content == "Done."


def test_a_question_survives_the_process_that_asked_it(tmp_path: Path, disk: Disk) -> None:
    path = str(tmp_path / "checkpoints.sqlite")

    def agent_in(saver: Any) -> tuple[Any, Any]:
        judge = judge_of(calls=lambda name, args: 0.5)
        model = script(calls(("act", {"x": 1})), "Done.")
        middleware = [SafeCoDeMiddleware(judge)]
        return create_agent(model, [disk.tool()], middleware=middleware, checkpointer=saver), judge

    with SqliteSaver.from_conn_string(path) as saver:
        agent, _ = agent_in(saver)
        agent.invoke({"messages": [user("Go.", "navy")]}, CONFIG)
    with SqliteSaver.from_conn_string(path) as saver:
        agent, second = agent_in(saver)
        state = agent.invoke(Command(resume={"type": "approve", "by": "ada"}), CONFIG)
        assert disk.ran == ["act-1"]
        assert asked(second, "tool_call") == []
        [verdict] = verdicts_in(state, "tool_call")
        assert verdict.review.by == "ada"


def test_a_held_result_survives_the_process_too(tmp_path: Path, disk: Disk) -> None:
    path = str(tmp_path / "checkpoints.sqlite")
    content = [{"type": "text", "text": "seen"}, picture("crimson")]
    policy = {"stages": {"tool_result": {"actions": {"unsafe": "review"}}}}

    def agent_in(saver: Any) -> Any:
        model = script(calls(("act", {"x": 1})), "Done.")
        middleware = [SafeCoDeMiddleware(judge_of(), policy=policy)]
        tool = disk.tool(gives=content)
        return create_agent(model, [tool], middleware=middleware, checkpointer=saver)

    with SqliteSaver.from_conn_string(path) as saver:
        agent_in(saver).invoke({"messages": [user("Go.")]}, CONFIG)
    with SqliteSaver.from_conn_string(path) as saver:
        state = agent_in(saver).invoke(Command(resume={"type": "approve"}), CONFIG)
    assert results(state["messages"])["call-1"].content == content
    assert disk.ran == ["act-1"]


def interrupted(disk: Disk, judge: Any, policy: Any = None) -> tuple[Any, Any]:
    """Return an agent that waits before its tools, its call having been judged and passed."""
    saver = InMemorySaver()
    agent = create_agent(
        script(calls(("act", {"x": 1})), "Done."),
        [disk.tool()],
        middleware=[SafeCoDeMiddleware(judge, policy=policy)],
        checkpointer=saver,
        interrupt_before=["tools"],
    )
    agent.invoke({"messages": [user("Go.", "navy")]}, CONFIG)
    return agent, saver


def test_a_verdict_that_nobody_touched_is_taken_from_the_state(disk: Disk) -> None:
    judge = judge_of(calls=unsafe_twos)
    _, saver = interrupted(disk, judge)
    other = judge_of(calls=lambda name, args: 0.9)
    again = create_agent(
        script(calls(("act", {"x": 1})), "Done."),
        [disk.tool()],
        middleware=[SafeCoDeMiddleware(other)],
        checkpointer=saver,
    )
    again.invoke(None, CONFIG)
    assert disk.ran == ["act-1"]
    assert asked(other, "tool_call") == []


def forged(entry: dict[str, Any]) -> list[dict[str, Any]]:
    action, label = {**entry, "action": "pass"}, {**entry, "label": "safe"}
    return [
        action,
        {**label, **action, "p_unsafe": 0.0},
        {**entry, "policy": {**entry["policy"], "digest": "0" * 64}},
        {**entry, "seal": "0" * 64},
        {"action": "pass"},
        "pass",  # type: ignore[list-item]
    ]


@pytest.mark.parametrize("number", range(6))
def test_a_verdict_that_was_tampered_with_is_no_verdict(number: int, disk: Disk) -> None:
    judge = judge_of(calls=lambda name, args: 0.9)
    agent, _ = interrupted(disk, judge)
    values = agent.get_state(CONFIG).values
    entry = copy.deepcopy(values["safecode_verdicts"]["tool_call:call-1"])
    agent.update_state(CONFIG, {"safecode_verdicts": {"tool_call:call-1": forged(entry)[number]}})
    state = agent.invoke(None, CONFIG)
    assert disk.ran == []
    assert "Not run" in results(state["messages"])["call-1"].content


def test_a_verdict_under_another_policy_is_no_verdict(disk: Disk) -> None:
    _, saver = interrupted(disk, judge_of(calls=lambda name, args: 0.5))
    judge = judge_of()
    lenient = {"thresholds": {"unsafe": 0.9, "safe": 0.6}}
    again = create_agent(
        script(calls(("act", {"x": 1})), "Done."),
        [disk.tool()],
        middleware=[SafeCoDeMiddleware(judge, policy=lenient)],
        checkpointer=saver,
    )
    again.invoke(None, CONFIG)
    assert len(asked(judge, "tool_call")) == 1
    assert disk.ran == ["act-1"]


def test_a_verdict_on_another_scene_is_no_verdict(disk: Disk) -> None:
    """A verdict on a call is good for the kitchen that was judged, and for no other."""
    judge = judge_of(calls=unsafe_twos)
    agent, _ = interrupted(disk, judge)
    messages = agent.get_state(CONFIG).values["messages"]
    agent.update_state(CONFIG, {"messages": [user("Go.", "olive", id=messages[0].id)]})
    agent.invoke(None, CONFIG)
    assert len(asked(judge, "tool_call")) == 2


def test_verdicts_cannot_be_handed_in(form: str, disk: Disk) -> None:
    judge = judge_of(calls=lambda name, args: 0.9)
    agent, _ = interrupted(disk, judge_of(calls=lambda name, args: 0.1))
    kept = agent.get_state(CONFIG).values
    fresh = create_agent(
        script(calls(("act", {"x": 1})), "Done."),
        [disk.tool()],
        middleware=[SafeCoDeMiddleware(judge)],
    )
    given = {
        "messages": [user("Go.", "navy")],
        "safecode_verdicts": kept["safecode_verdicts"],
        "safecode_passed": {"request:x": "y"},
    }
    if form == "ainvoke":
        asyncio.run(fresh.ainvoke(given))
    else:
        fresh.invoke(given)
    assert disk.ran == []


def test_an_edit_of_the_state_is_judged(disk: Disk) -> None:
    judge = judge_of(calls=unsafe_twos)
    agent, _ = interrupted(disk, judge)
    answer = agent.get_state(CONFIG).values["messages"][-1]
    call = {**answer.tool_calls[0], "args": {"x": 2}}
    agent.update_state(CONFIG, {"messages": [AIMessage("", id=answer.id, tool_calls=[call])]})
    state = agent.invoke(None, CONFIG)
    assert disk.ran == []
    assert "Not run" in results(state["messages"])["call-1"].content


def wiping(judge: Any, ran: list[Any], policy: Any = None) -> Any:
    @tool
    def wipe(what: str) -> str:
        """Wipe."""
        ran.append(interrupt(f"Really wipe the {what}?"))
        return "ok"

    graph = StateGraph(State)
    graph.add_node("act", ToolNode(guard_tools([wipe], judge, policy)))
    graph.add_edge(START, "act")
    return graph.compile(checkpointer=InMemorySaver())


def go(is_async: bool, app: Any, given: Any) -> dict[str, Any]:
    return asyncio.run(app.ainvoke(given, CONFIG)) if is_async else app.invoke(given, CONFIG)


WIPE = ("wipe", {"what": "disk"})


@pytest.mark.parametrize("is_async", [False, True])
def test_the_ruling_that_asked_is_the_one_that_is_resumed(is_async: bool) -> None:
    """An answer to the guard is never taken by the tool's own question."""
    ran: list[Any] = []
    judge = ScriptedJudge([JudgeError("down"), 0.05, 0.05])
    app = wiping(judge, ran)
    go(is_async, app, {"messages": [user("Go.", "navy"), calls(WIPE)]})
    state = go(is_async, app, Command(resume={"type": "approve"}))
    assert ran == []
    assert state["__interrupt__"][0].value == "Really wipe the disk?"
    assert len(judge.requests) == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_an_answer_to_a_tool_is_never_taken_by_the_guard(is_async: bool) -> None:
    ran: list[Any] = []
    judge = ScriptedJudge([0.05, JudgeError("down")])
    app = wiping(judge, ran, {"judge": {"kind": "custom", "id": "scripted", "cache_size": 0}})
    state = go(is_async, app, {"messages": [user("Go.", "navy"), calls(WIPE)]})
    assert state["__interrupt__"][0].value == "Really wipe the disk?"
    state = go(is_async, app, Command(resume={"type": "approve"}))
    assert ran == []
    assert "another question" in state["messages"][-1].content
