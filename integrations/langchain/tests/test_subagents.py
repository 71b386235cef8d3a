"""Agents in agents: judged in the scene of their callers as well as in their own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from safecode_guard_langchain import SafeCoDeMiddleware, within_scene
from safecode_guard_langchain.testing import calls, results
from support import UNSAFE, Disk, asked, judge_of, picture, png, run_in, script, shows, user

from safecode_guard.testing import ScriptedJudge

CONFIG: dict[str, Any] = {"configurable": {"thread_id": "1"}}


def towel_judge() -> ScriptedJudge:
    """Judge switching on unsafe where the picture shows a towel (crimson)."""
    return ScriptedJudge(
        lambda r: (
            0.9
            if r.stage == "tool_call" and r.tool_call.name == "act" and shows(r, UNSAFE)
            else 0.1
        )
    )


def helper(disk: Disk, judge: Any, *replies: Any) -> Any:
    model = script(*(replies or (calls(("act", {"x": 1}), first_id="sub"), "It is on.")))
    return create_agent(model, [disk.tool()], middleware=[SafeCoDeMiddleware(judge)])


def delegating(agent: Any) -> Any:
    @tool
    async def adelegate(task: str) -> str:
        """Delegate."""
        state = await agent.ainvoke({"messages": [HumanMessage(task)]})
        return state["messages"][-1].content

    @tool
    def delegate(task: str) -> str:
        """Delegate."""
        return agent.invoke({"messages": [HumanMessage(task)]})["messages"][-1].content

    delegate.coroutine = adelegate.coroutine
    return delegate


@pytest.mark.parametrize("colour", [UNSAFE, "navy"])
def test_an_agent_as_a_tool_is_judged_in_the_kitchen_of_its_caller(
    colour: str, form: str, disk: Disk
) -> None:
    judge = towel_judge()
    caller = create_agent(
        script(calls(("delegate", {"task": "switch the stove on"})), "Done."),
        [delegating(helper(disk, judge))],
        middleware=[SafeCoDeMiddleware(judge)],
    )
    run_in(form, caller, {"messages": [user("Make dinner.", colour)]})
    assert disk.ran == ([] if colour == UNSAFE else ["act-1"])
    inner = [r for r in asked(judge, "tool_call") if r.tool_call.name == "act"]
    requests = {r.scene.request for r in inner}
    assert requests == {"Make dinner.\nswitch the stove on", "Make dinner."}


def test_with_a_picture_of_its_own_it_is_judged_in_both_scenes(form: str, disk: Disk) -> None:
    judge = towel_judge()
    inner = helper(
        disk, judge, calls(("look", {}), first_id="l"), calls(("act", {"x": 1})), "It is on."
    )

    @tool
    def look() -> Any:
        """Look."""
        return [picture("olive")]

    inner = create_agent(
        script(calls(("look", {}), first_id="l"), calls(("act", {"x": 1})), "It is on."),
        [disk.tool(), look],
        middleware=[SafeCoDeMiddleware(judge)],
    )
    caller = create_agent(
        script(calls(("delegate", {"task": "switch it on"}), first_id="c"), "Done."),
        [delegating(inner)],
        middleware=[SafeCoDeMiddleware(judge)],
    )
    run_in(form, caller, {"messages": [user("Make dinner.", UNSAFE)]})
    assert disk.ran == []
    requests = [r for r in asked(judge, "tool_call") if r.tool_call.name == "act"]
    assert {shows(r, "olive") for r in requests} == {True, False}
    assert {shows(r, UNSAFE) for r in requests} == {True, False}


def test_agents_three_deep_are_judged_in_the_scene_of_the_first(form: str, disk: Disk) -> None:
    judge = towel_judge()
    middle = create_agent(
        script(calls(("delegate", {"task": "do it"}), first_id="m"), "Done."),
        [delegating(helper(disk, judge))],
        middleware=[SafeCoDeMiddleware(judge)],
    )
    outer = create_agent(
        script(calls(("delegate", {"task": "see to it"}), first_id="o"), "Done."),
        [delegating(middle)],
        middleware=[SafeCoDeMiddleware(judge)],
    )
    run_in(form, outer, {"messages": [user("Make dinner.", UNSAFE)]})
    assert disk.ran == []


def test_the_answer_of_a_sub_agent_is_judged_in_the_scene_of_its_caller(
    form: str, disk: Disk
) -> None:
    judge = ScriptedJudge(
        lambda r: 0.9 if r.stage == "output" and "secret" in r.answer and r.scene.images else 0.1
    )
    caller = create_agent(
        script(calls(("delegate", {"task": "tell"})), "Done."),
        [delegating(helper(disk, judge, "a secret"))],
        middleware=[SafeCoDeMiddleware(judge)],
    )
    state = run_in(form, caller, {"messages": [user("Go.", "navy")]})
    assert "secret" not in str(results(state["messages"])["call-1"].content)


def test_the_scene_ends_with_the_call(form: str, disk: Disk) -> None:
    judge = towel_judge()
    inner = helper(disk, judge)
    caller = create_agent(
        script(calls(("delegate", {"task": "on"})), "Done."),
        [delegating(inner)],
        middleware=[SafeCoDeMiddleware(judge)],
    )
    run_in(form, caller, {"messages": [user("Make dinner.", UNSAFE)]})
    run_in(form, inner, {"messages": [HumanMessage("switch it on")]})
    assert disk.ran == ["act-1"]


def test_a_subgraph_shares_the_conversation(form: str, disk: Disk) -> None:
    judge = towel_judge()
    graph = StateGraph(MessagesState)
    graph.add_node("helper", helper(disk, judge))
    graph.add_edge(START, "helper")
    graph.add_edge("helper", END)
    run_in(form, graph.compile(), {"messages": [user("Switch it on.", UNSAFE)]})
    assert disk.ran == []


@pytest.mark.parametrize("is_async", [False, True])
def test_a_node_that_calls_an_agent_with_words_of_its_own_hands_the_scene_on(
    is_async: bool, disk: Disk
) -> None:
    agent = helper(disk, towel_judge())
    task = {"messages": [HumanMessage("switch it on")]}

    def node(state: MessagesState) -> Any:
        with within_scene(state["messages"]):
            return agent.invoke(task)

    async def anode(state: MessagesState) -> Any:
        with within_scene(state["messages"]):
            return await agent.ainvoke(task)

    graph = StateGraph(MessagesState)
    graph.add_node("helper", anode if is_async else node)
    graph.add_edge(START, "helper")
    form = "ainvoke" if is_async else "invoke"
    run_in(form, graph.compile(), {"messages": [user("Make dinner.", UNSAFE)]})
    assert disk.ran == []


# -- deep agents ------------------------------------------------------------------------------


def deep(disk: Disk, judge: Any, *, own: bool = True, mode: str = "isolated", **fields: Any) -> Any:
    """Return a deep agent whose general-purpose sub-agent is guarded by name."""

    def reply(messages: Any) -> Any:
        delegated = "switch the stove on" in str(messages[-1].content)
        answered = any(m.type == "tool" for m in messages[-2:])
        if answered:
            return script("Done.").replies[0].model_copy(update={"id": None})
        if delegated:
            return calls(("act", {"x": 1}), first_id="sub")
        task = {"description": "switch the stove on", "subagent_type": "general-purpose"}
        return calls(("task", task), first_id="top")

    from safecode_guard_langchain.testing import ScriptedChatModel

    guard = SafeCoDeMiddleware(judge, tool_policies={"write_todos": "skip"})
    general = {
        "name": "general-purpose",
        "description": "Does things.",
        "system_prompt": "Do it.",
        "mode": mode,
        "middleware": [SafeCoDeMiddleware(judge)] if own else [],
    }
    return create_deep_agent(
        ScriptedChatModel(replies=reply),
        [disk.tool()],
        middleware=[guard],
        subagents=[general],
        **fields,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("colour", [UNSAFE, "navy"])
@pytest.mark.parametrize("mode", ["isolated", "fork"])
def test_a_deep_agents_sub_agent_is_judged_in_the_kitchen(
    colour: str, mode: str, form: str, disk: Disk
) -> None:
    judge = towel_judge()
    agent = deep(disk, judge, mode=mode)
    run_in(form, agent, {"messages": [user("Make dinner.", colour)]})
    assert disk.ran == ([] if colour == UNSAFE else ["act-1"])


@pytest.mark.filterwarnings("ignore")
def test_a_sub_agent_without_the_guard_is_not_guarded(disk: Disk) -> None:
    """Why the docs say to name it in every sub-agent: deepagents hands middlewares on to none."""
    deep(disk, towel_judge(), own=False).invoke({"messages": [user("Make dinner.", UNSAFE)]})
    assert disk.ran == ["act-1"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decision", ["approve", "edit"])
def test_interrupt_on_in_a_deep_agent_lets_nothing_past(decision: str, disk: Disk) -> None:
    judge = towel_judge()
    agent = deep(disk, judge, interrupt_on={"act": True}, checkpointer=InMemorySaver())
    state = agent.invoke({"messages": [user("Make dinner.", UNSAFE)]}, CONFIG)
    made = {"type": decision}
    if decision == "edit":
        made["edited_action"] = {"name": "act", "args": {"x": 5}}
    while questions := state.get("__interrupt__"):
        answers = {
            q.id: {"decisions": [made]} if "action_requests" in q.value else made for q in questions
        }
        state = agent.invoke(Command(resume=answers), CONFIG)
    assert disk.ran == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_async", [False, True])
def test_a_question_in_a_sub_agent_surfaces_and_resumes(is_async: bool, disk: Disk) -> None:
    judge = ScriptedJudge(
        lambda r: 0.5 if r.stage == "tool_call" and r.tool_call.name == "act" else 0.1
    )
    agent = deep(disk, judge, checkpointer=InMemorySaver())

    def go(given: Any) -> Any:
        if is_async:
            return asyncio.run(agent.ainvoke(given, CONFIG))
        return agent.invoke(given, CONFIG)

    state = go({"messages": [user("Make dinner.", "navy")]})
    [question] = state["__interrupt__"]
    assert question.value["name"] == "act"
    go(Command(resume={"type": "approve"}))
    assert disk.ran == ["act-1"]


@pytest.mark.filterwarnings("ignore")
def test_a_sub_agent_is_never_shown_what_its_caller_may_not_see(disk: Disk) -> None:
    agent = deep(disk, judge_of())
    state = agent.invoke({"messages": [user("Make dinner.", UNSAFE)]})
    assert disk.ran == []
    assert png(UNSAFE) not in str(state["messages"][1:])
