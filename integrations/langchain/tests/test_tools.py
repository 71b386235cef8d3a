"""Guarded tools: the same face, in every place where tools are used."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from deepagents import create_deep_agent
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.tools import ToolRuntime
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForToolRun
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import (
    BaseTool,
    InjectedToolCallId,
    StructuredTool,
    Tool,
    ToolException,
    tool,
)
from langchain_core.tools.base import _format_output
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, InjectedStore, ToolNode
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, interrupt
from pydantic import BaseModel, Field
from safecode_guard_langchain import (
    GuardedTool,
    SafeCoDeMiddleware,
    UnmatchedToolWarning,
    VerdictState,
    guard_tools,
    review_node,
    verdicts_in,
)
from safecode_guard_langchain.results import as_message
from safecode_guard_langchain.testing import calls, results
from support import UNSAFE, Disk, asked, judge_of, picture, png, run_in, script, user

CONFIG: dict[str, Any] = {"configurable": {"thread_id": "1"}}
SYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


class State(MessagesState, VerdictState):
    pass


class Args(BaseModel):
    x: int = Field(description="How much.")
    colour: str = "red"


@tool(args_schema=Args, extras={"cache_control": {"type": "ephemeral"}})
def paint(x: int, colour: str = "red") -> str:
    """Paint something."""
    return f"{x} {colour}"


@tool
def injected(
    x: int,
    state: Annotated[dict[str, Any], InjectedState],
    messages: Annotated[list[Any], InjectedState("messages")],
    store: Annotated[Any, InjectedStore()],
    id: Annotated[str, InjectedToolCallId],
    runtime: ToolRuntime,
    config: RunnableConfig,
) -> str:
    """Use what is injected."""
    where = type(runtime).__name__, runtime.tool_call_id, config["metadata"].get("who")
    return (
        f"{x} {len(state['messages'])} {len(messages)} {store.get(('a',), 'b').value} {id} {where}"
    )


@tool
async def only_async(x: int) -> str:
    """Work on a loop."""
    return f"async {x}"


class Own(BaseTool):
    name: str = "own"
    description: str = "A tool by class."

    def _run(self, x: int, run_manager: CallbackManagerForToolRun | None = None) -> str:
        assert run_manager is not None
        return f"own {x} {run_manager.run_id is not None}"


class Untamed(BaseTool):
    """Runs in a way of its own."""

    name: str = "untamed"
    description: str = "A tool with a run of its own."

    def _run(self, x: int) -> Any:
        return picture(UNSAFE) if x == 13 else f"inner {x}"

    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return super().run(tool_input, *args, **kwargs)


def mcp_tool() -> StructuredTool:
    """A tool as an MCP adapter makes it: asynchronous, JSON schema, content and artifact."""

    async def call_tool(runtime: Any = None, **arguments: Any) -> Any:
        return [{"type": "text", "text": f"mcp {arguments}"}], {"structured": arguments}

    return StructuredTool(
        name="mcp",
        description="From a server.",
        args_schema={"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
        coroutine=call_tool,
        response_format="content_and_artifact",
        metadata={"mcp": {"tool": {"annotations": {"readOnlyHint": True}}}},
    )


simple = Tool(name="simple", description="One text.", func=lambda text: f"simple {text}")
ALL = [paint, injected, only_async, Own(), Untamed(), mcp_tool(), simple]


def without_titles(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_titles(v) for k, v in value.items() if k != "title"}
    return value


@pytest.mark.parametrize("inner", ALL, ids=lambda t: t.name)
def test_a_model_is_shown_the_same_tool(inner: BaseTool) -> None:
    [guarded] = guard_tools([inner], judge_of())
    assert isinstance(guarded, GuardedTool)
    assert without_titles(convert_to_openai_tool(guarded)) == without_titles(
        convert_to_openai_tool(inner)
    )
    same = ("name", "description", "return_direct", "metadata", "tags", "extras", "response_format")
    assert [getattr(guarded, key) for key in same] == [getattr(inner, key) for key in same]


def in_node(tools: Any, *, schema: Any = State, **fields: Any) -> Any:
    graph = StateGraph(schema)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "tools")
    graph.add_edge("tools", END)
    return graph.compile(**fields)


def ran_by(is_async: bool, app: Any, given: Any, config: Any = None) -> Any:
    return run_in("ainvoke" if is_async else "invoke", app, given, config)


ARGS: dict[str, dict[str, Any]] = {"simple": {"__arg1": "a"}}


@pytest.mark.parametrize("schema", [State, MessagesState])
@pytest.mark.parametrize("inner", ALL, ids=lambda t: t.name)
def test_a_tool_node_runs_it_as_it_ran(inner: BaseTool, schema: Any) -> None:
    store = InMemoryStore()
    store.put(("a",), "b", {"c": 1})
    given = {"messages": [user("Go.", "navy"), calls((inner.name, ARGS.get(inner.name, {"x": 3})))]}
    config = {"metadata": {"who": "ada"}, **CONFIG}
    is_async = inner.name in ("only_async", "mcp")

    def told(tools: Any) -> Any:
        app = in_node(tools, schema=schema, store=store)
        message = ran_by(is_async, app, given, config)["messages"][-1]
        return message.content, message.artifact, message.status, message.name

    content, *rest = told(guard_tools([inner], judge_of()))
    expected, *other = told([inner])
    assert content == str(expected).replace("ToolRuntime", "QuietRuntime") or content == expected
    assert rest == other


@SYNC
def test_calls_are_enforced_in_a_graph_of_ones_own(is_async: bool, disk: Disk) -> None:
    judge = judge_of(calls=lambda name, args: 0.9 if args["x"] == 2 else 0.1)
    app = in_node(guard_tools([disk.tool()], judge))
    proposed = calls(("act", {"x": 1}), ("act", {"x": 2}))
    state = ran_by(is_async, app, {"messages": [user("Go.", "navy"), proposed]})
    assert disk.ran == ["act-1"]
    assert results(state["messages"])["call-2"].status == "error"
    [request, _] = asked(judge, "tool_call")
    assert request.scene.request == "Go."
    assert len(request.scene.images) == 1
    assert {v.tool_call.id: v.action for v in verdicts_in(state, "tool_call")} == {
        "call-1": "pass",
        "call-2": "block",
    }


@SYNC
@pytest.mark.parametrize("schema", [State, MessagesState])
def test_results_are_enforced_there_too(is_async: bool, schema: Any, disk: Disk) -> None:
    photo = [{"type": "text", "text": "seen"}, picture(UNSAFE)]
    app = in_node(guard_tools([disk.tool(gives=photo)], judge_of()), schema=schema)
    given = {"messages": [HumanMessage("Go."), calls(("act", {"x": 1}))]}
    state = ran_by(is_async, app, given)
    told = results(state["messages"])["call-1"]
    assert told.content[0]["text"] == "seen"
    assert png(UNSAFE) not in str(state)


def test_a_list_of_messages_is_a_state_as_well(disk: Disk) -> None:
    node = ToolNode(guard_tools([disk.tool()], judge_of(calls=lambda name, args: 0.9)))
    graph = StateGraph(Annotated[list[Any], lambda a, b: [*a, *b]])
    graph.add_node("tools", node)
    graph.add_edge(START, "tools")
    messages = graph.compile().invoke([user("Go.", "navy"), calls(("act", {"x": 1}))])
    assert disk.ran == []
    assert messages[-1].content.startswith("Not run")


@SYNC
def test_outside_of_any_graph_a_call_is_judged_by_itself(is_async: bool, disk: Disk) -> None:
    judge = judge_of(calls=lambda name, args: 0.9 if args["x"] == 2 else 0.1)
    [act] = guard_tools([disk.tool()], judge)

    def call(x: int) -> Any:
        return asyncio.run(act.ainvoke({"x": x})) if is_async else act.invoke({"x": x})

    assert call(1) == "did act 1"
    assert call(2) == "Not run: judged unsafe by policy 'balanced', p 0.90."
    assert disk.ran == ["act-1"]


def test_a_picture_outside_of_any_graph_is_withheld(disk: Disk) -> None:
    [act] = guard_tools([disk.tool(gives=[picture(UNSAFE)])], judge_of())
    assert png(UNSAFE) not in str(act.invoke({"x": 1}))


@SYNC
def test_a_tool_with_a_run_of_its_own_is_judged(is_async: bool) -> None:
    app = in_node(guard_tools([Untamed()], judge_of()))
    given = {"messages": [user("Go.", "navy"), calls(("untamed", {"x": 13}))]}
    state = ran_by(is_async, app, given)
    assert png(UNSAFE) not in str(state["messages"][-1])
    assert state["messages"][-1].status == "error"


class Hears(BaseCallbackHandler):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
        self.heard.append(f"start {input_str}")

    def on_tool_end(self, output: Any, **kwargs: Any) -> None:
        self.heard.append(f"end {output}")

    def on_tool_error(self, error: Any, **kwargs: Any) -> None:
        self.heard.append(f"error {error}")


@SYNC
@pytest.mark.parametrize("kind", ["node", "agent"])
def test_tool_events_show_only_what_passed(kind: str, is_async: bool, disk: Disk) -> None:
    judge = judge_of(calls=lambda name, args: 0.9 if args["x"] == 2 else 0.1)
    act = disk.tool(gives=lambda x: [picture(UNSAFE)] if x == 3 else f"did {x}")
    proposed = calls(*[("act", {"x": x}) for x in (1, 2, 3)])
    ears = Hears()
    given: Any = {"messages": [user("Go.", "navy")]}
    if kind == "node":
        app = in_node(guard_tools([act], judge))
        given["messages"].append(proposed)
    else:
        guard = SafeCoDeMiddleware(judge)
        app = create_agent(script(proposed, "Done."), [act], middleware=[guard])
    ran_by(is_async, app, given, {"callbacks": [ears]})
    heard = " ".join(ears.heard)
    assert "'x': 1" in heard
    assert "did 1" in heard
    assert "'x': 2" not in heard
    assert png(UNSAFE) not in heard
    assert len([h for h in ears.heard if h.startswith("start")]) == 2
    assert len([h for h in ears.heard if h.startswith("end")]) == 2


@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.filterwarnings("ignore")
def test_streamed_events_of_tools_show_only_what_passed(version: Any, disk: Disk) -> None:
    agent = create_agent(
        script(calls(("act", {"x": 3})), "Done."),
        [disk.tool(gives=[picture(UNSAFE)])],
        middleware=[SafeCoDeMiddleware(judge_of())],
    )

    async def all_of() -> list[Any]:
        events = agent.astream_events({"messages": [HumanMessage("Go.")]}, version=version)
        events = await events if asyncio.iscoroutine(events) else events
        return [event async for event in events]

    assert png(UNSAFE) not in str(asyncio.run(all_of()))
    streamed = agent.stream({"messages": [HumanMessage("Go.")]}, stream_mode="tools")
    assert png(UNSAFE) not in str(list(streamed))


def test_deltas_of_a_tool_carry_words_and_no_pictures(disk: Disk) -> None:
    @tool
    def film(runtime: ToolRuntime) -> str:
        """Film."""
        runtime.emit_output_delta("half way")
        runtime.emit_output_delta({"frame": png(UNSAFE)})
        runtime.emit_output_delta(f"data:image/png;base64,{png(UNSAFE)}")
        return "done"

    agent = create_agent(
        script(calls(("film", {})), "Done."), [film], middleware=[SafeCoDeMiddleware(judge_of())]
    )
    events = str(list(agent.stream({"messages": [HumanMessage("Go.")]}, stream_mode="tools")))
    assert "half way" in events
    assert png(UNSAFE) not in events


@SYNC
def test_a_held_call_can_be_asked_about(is_async: bool, disk: Disk) -> None:
    judge = judge_of(calls=lambda name, args: 0.5)
    app = in_node(guard_tools([disk.tool()], judge), checkpointer=InMemorySaver())
    given = {"messages": [user("Go.", "navy"), calls(("act", {"x": 1}))]}
    state = ran_by(is_async, app, given, CONFIG)
    assert state["__interrupt__"][0].value["type"] == "tool_approval"
    state = ran_by(is_async, app, Command(resume={"type": "approve", "by": "ada"}), CONFIG)
    assert disk.ran == ["act-1"]
    assert verdicts_in(state, "tool_call")[0].review.by == "ada"


@SYNC
@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_a_held_result_is_asked_about_by_a_node(is_async: bool, decision: str, disk: Disk) -> None:
    policy = {"stages": {"tool_result": {"actions": {"unsafe": "review"}}}}
    photo = [picture(UNSAFE)]
    graph = StateGraph(State)
    graph.add_node("tools", ToolNode(guard_tools([disk.tool(gives=photo)], judge_of(), policy)))
    graph.add_node("ask", review_node(stage="tool_result"))
    graph.add_edge(START, "tools")
    graph.add_edge("tools", "ask")
    graph.add_edge("ask", END)
    app = graph.compile(checkpointer=InMemorySaver())
    given = {"messages": [HumanMessage("Go."), calls(("act", {"x": 1}))]}
    state = ran_by(is_async, app, given, CONFIG)
    assert png(UNSAFE) not in str(state["messages"])
    state = ran_by(is_async, app, Command(resume={"type": decision}), CONFIG)
    told = results(state["messages"])["call-1"]
    assert (told.content == photo) is (decision == "approve")
    assert disk.ran == ["act-1"]


def test_without_a_place_to_hold_it_a_result_is_withheld(disk: Disk) -> None:
    policy = {"stages": {"tool_result": {"actions": {"unsafe": "review"}}}}
    guarded = guard_tools([disk.tool(gives=[picture(UNSAFE)])], judge_of(), policy)
    app = in_node(guarded, schema=MessagesState, checkpointer=InMemorySaver())
    given = {"messages": [HumanMessage("Go."), calls(("act", {"x": 1}))]}
    state = app.invoke(given, CONFIG)
    assert "withheld" in str(results(state["messages"])["call-1"].content)


@SYNC
def test_a_tool_that_asks_a_question_of_its_own_still_does(is_async: bool) -> None:
    @tool
    def ask(x: int) -> str:
        """Ask."""
        return f"{x} {interrupt('how many?')}"

    judge = judge_of()
    app = in_node(guard_tools([ask], judge), checkpointer=InMemorySaver())
    state = ran_by(is_async, app, {"messages": [user("Go."), calls(("ask", {"x": 1}))]}, CONFIG)
    assert state["__interrupt__"][0].value == "how many?"
    state = ran_by(is_async, app, Command(resume="three"), CONFIG)
    assert results(state["messages"])["call-1"].content == "1 three"
    assert len(asked(judge, "tool_call")) == 1


def test_in_an_agent_beside_the_middleware_both_guard(form: str, disk: Disk) -> None:
    [act] = guard_tools(
        [disk.tool()], judge_of(calls=lambda name, args: 0.9 if args["x"] == 1 else 0.1)
    )
    guard = SafeCoDeMiddleware(
        judge_of(calls=lambda name, args: 0.9 if args["x"] == 2 else 0.1), name="second"
    )
    proposed = calls(*[("act", {"x": x}) for x in (1, 2, 3)])
    agent = create_agent(script(proposed, "Done."), [act], middleware=[guard])
    run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert disk.ran == ["act-3"]


@pytest.mark.filterwarnings("ignore")
def test_in_a_deep_agent_tools_are_guarded_in_every_sub_agent(form: str, disk: Disk) -> None:
    """Guarded tools go with the tools: no middleware has to be named again."""

    def reply(messages: Any) -> Any:
        if any(m.type == "tool" for m in messages[-2:]):
            return AIMessage("Done.")
        if "switch" in str(messages[-1].content):
            return calls(("act", {"x": 1}), first_id="sub")
        task = {"description": "switch it on", "subagent_type": "general-purpose"}
        return calls(("task", task))

    from safecode_guard_langchain.testing import ScriptedChatModel

    judge = judge_of(calls=lambda name, args: 0.9)
    agent = create_deep_agent(ScriptedChatModel(replies=reply), guard_tools([disk.tool()], judge))
    run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert disk.ran == []


def test_patterns_that_match_no_tool_are_told_of(disk: Disk) -> None:
    with pytest.warns(UnmatchedToolWarning, match="'get_\\*'.*act"):
        guard_tools([disk.tool()], judge_of(), tool_policies={"get_*": "skip"})
    agent = create_agent(
        script("Hi."),
        [disk.tool()],
        middleware=[SafeCoDeMiddleware(judge_of(), tool_policies={"get_*": "skip"})],
    )
    with pytest.warns(UnmatchedToolWarning, match="get_"):
        agent.invoke({"messages": [HumanMessage("Hi")]})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
blocks = st.lists(
    st.text(max_size=5)
    | st.fixed_dictionaries({"type": st.sampled_from(["text", "image", "json", "odd"])})
)


@given(values | blocks | st.tuples(st.text()), values)
def test_what_is_judged_is_what_langchain_makes_of_it(content: Any, artifact: Any) -> None:
    made = as_message(content, artifact, name="t", id="1")
    assert made == _format_output(content, artifact, "1", "t", "success")


words = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner))


@given(words, st.booleans() | st.text(min_size=1))
def test_a_handled_error_is_what_langchain_makes_of_it(value: Any, handle: Any) -> None:
    @tool
    def fail() -> str:
        """Fail."""
        raise ToolException(value)

    fail.handle_tool_error = handle
    [guarded] = guard_tools([fail], judge_of())
    request = {"name": "fail", "args": {}, "id": "1", "type": "tool_call"}
    if not handle:
        with pytest.raises(ToolException):
            guarded.invoke(request)
    else:
        assert guarded.invoke(request) == fail.invoke(request)


def test_a_message_that_a_tool_returns_stays_the_same_object() -> None:
    message = ToolMessage("made by hand", tool_call_id="1", additional_kwargs={"a": 1})

    @tool
    def by_hand() -> Any:
        """Make a message."""
        return message

    [guarded] = guard_tools([by_hand], judge_of())
    request = {"name": "by_hand", "args": {}, "id": "1", "type": "tool_call"}
    assert guarded.invoke(request) is message
