"""Beside other middlewares, in every order: what does not pass does not run, and is not shown."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    ModelRetryMiddleware,
    PIIMiddleware,
    ToolCallLimitMiddleware,
    ToolRetryMiddleware,
    hook_config,
)
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from safecode_guard_langchain import SafeCoDeMiddleware
from safecode_guard_langchain.testing import calls, results
from support import UNSAFE, Disk, asked, judge_of, picture, run_in, script, shown_to, user

CONFIG: dict[str, Any] = {"configurable": {"thread_id": "1"}}
ORDERS = pytest.mark.parametrize("guard_first", [True, False], ids=["guard first", "guard last"])
BAD = {2, 5, 7}


def bad_is_unsafe(name: str, args: dict[str, Any]) -> float:
    return 0.9 if args.get("x") in BAD or name == "bomb" else 0.1


def ordered(guard_first: bool, *others: AgentMiddleware) -> list[AgentMiddleware]:
    guard = SafeCoDeMiddleware(judge_of(calls=bad_is_unsafe))
    return [guard, *others] if guard_first else [*others, guard]


def ten() -> AIMessage:
    return calls(*[("act", {"x": x}) for x in range(10)])


class JumpsToTools(AgentMiddleware):
    """Runs the tools at once, whatever other middlewares still want to do."""

    @hook_config(can_jump_to=["tools"])
    def after_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        calls = next(m for m in reversed(state["messages"]) if isinstance(m, AIMessage)).tool_calls
        return {"jump_to": "tools"} if calls else None


class RewritesCalls(AgentMiddleware):
    """Changes the arguments of a call as it runs."""

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(tool_call=changed(request)))

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(tool_call=changed(request)))


def changed(request: Any) -> Any:
    return {**request.tool_call, "args": {"x": request.tool_call["args"]["x"] + 1}}


class RewritesMessage(AgentMiddleware):
    """Changes the calls of the answer itself, in place."""

    def after_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        answer = state["messages"][-1]
        for call in getattr(answer, "tool_calls", ()):
            call["args"]["x"] += 1
        return {"messages": [answer]}


class BringsATool(AgentMiddleware):
    """Runs a tool of its own, that nobody was told of."""

    def __init__(self, tool: Any) -> None:
        super().__init__()
        self.tool = tool

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(tool=self.tool))

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(tool=self.tool))


class Redirects(AgentMiddleware):
    """Runs another of the agent's tools."""

    def __init__(self, to: str) -> None:
        super().__init__()
        self.to = to

    def redirected(self, request: Any) -> Any:
        tool = next(tool for tool in request.runtime.tools if tool.name == self.to)
        return request.override(tool=tool, tool_call={**request.tool_call, "name": self.to})

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(self.redirected(request))

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(self.redirected(request))


class ShowsAPicture(AgentMiddleware):
    """Adds a picture just before the model is called."""

    def shown(self, request: Any) -> Any:
        return request.override(messages=[*request.messages, HumanMessage([picture(UNSAFE)])])

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(self.shown(request))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(self.shown(request))


class ChangesAPicture(AgentMiddleware):
    """Puts another picture into a message, under its own id."""

    def shown(self, request: Any) -> Any:
        first, *rest = request.messages
        swapped = first.model_copy(update={"content": [picture(UNSAFE), *first.content[1:]]})
        return request.override(messages=[swapped, *rest])

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(self.shown(request))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(self.shown(request))


class AddsAPicture(AgentMiddleware):
    """Adds a picture to the conversation, in the role of the user or of a tool."""

    def __init__(self, message: Any) -> None:
        super().__init__()
        self.message = message

    def before_model(self, state: Any, runtime: Any) -> dict[str, Any]:
        return {"messages": [self.message]}


class Answers(AgentMiddleware):
    """Answers a call without running the tool."""

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return ToolMessage([picture(UNSAFE)], tool_call_id=request.tool_call["id"])

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return self.wrap_tool_call(request, handler)


@ORDERS
@pytest.mark.parametrize(
    "other",
    [
        JumpsToTools,
        lambda: PIIMiddleware("email"),
        lambda: ToolCallLimitMiddleware(run_limit=50),
        lambda: ModelCallLimitMiddleware(run_limit=50),
        lambda: ToolRetryMiddleware(max_retries=1),
        lambda: ModelRetryMiddleware(max_retries=1),
        lambda: HumanInTheLoopMiddleware({"other": True}),
    ],
    ids=["jump", "pii", "tool limit", "model limit", "tool retry", "model retry", "hitl"],
)
def test_exactly_the_three_do_not_run(other: Any, guard_first: bool, form: str, disk: Disk) -> None:
    agent = create_agent(
        script(ten(), "Done."), [disk.tool()], middleware=ordered(guard_first, other())
    )
    state = run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert disk.ran == [f"act-{x}" for x in range(10) if x not in BAD]
    errors = [m for m in results(state["messages"]).values() if m.status == "error"]
    assert len(errors) == 3


@ORDERS
@pytest.mark.parametrize("other", [RewritesCalls, RewritesMessage])
def test_a_call_is_judged_as_it_runs(other: Any, guard_first: bool, form: str, disk: Disk) -> None:
    proposed = calls(*[("act", {"x": x}) for x in range(10)])
    middleware = ordered(guard_first, other())
    agent = create_agent(script(proposed, "Done."), [disk.tool()], middleware=middleware)
    run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert disk.ran == sorted(f"act-{x}" for x in range(1, 11) if x not in BAD)


@ORDERS
def test_a_redirected_call_is_judged_as_the_tool_that_runs(
    guard_first: bool, form: str, disk: Disk
) -> None:
    agent = create_agent(
        script(calls(("act", {"x": 1})), "Done."),
        [disk.tool(), disk.tool("bomb")],
        middleware=ordered(guard_first, Redirects("bomb")),
    )
    state = run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert disk.ran == []
    assert "Not run" in results(state["messages"])["call-1"].content


@ORDERS
@pytest.mark.parametrize("x", [1, 2])
def test_a_tool_that_a_middleware_brings_is_judged(
    x: int, guard_first: bool, form: str, disk: Disk
) -> None:
    agent = create_agent(
        script(calls(("act", {"x": x})), "Done."),
        [disk.tool()],
        middleware=ordered(guard_first, BringsATool(disk.tool("brought"))),
    )
    state = run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert disk.ran == ([] if x in BAD else ["brought-1"])
    told = results(state["messages"])["call-1"]
    assert (told.status == "error") is (x in BAD)


@ORDERS
def test_a_picture_that_such_a_tool_returns_is_judged(
    guard_first: bool, form: str, disk: Disk
) -> None:
    model = script(calls(("act", {"x": 1})), "Done.")
    brought = disk.tool("brought", gives=[picture(UNSAFE)])
    agent = create_agent(
        model, [disk.tool()], middleware=ordered(guard_first, BringsATool(brought))
    )
    run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert not shown_to(model, UNSAFE)


@ORDERS
@pytest.mark.parametrize(
    "other",
    [
        ShowsAPicture,
        ChangesAPicture,
        lambda: AddsAPicture(HumanMessage([picture(UNSAFE)])),
        lambda: AddsAPicture(ToolMessage([picture(UNSAFE)], tool_call_id="x")),
        Answers,
    ],
    ids=["shows", "changes", "adds user", "adds tool", "answers"],
)
def test_no_model_is_shown_a_picture_that_nobody_judged(
    other: Any, guard_first: bool, form: str, disk: Disk
) -> None:
    model = script(calls(("act", {"x": 1})), "Done.")
    agent = create_agent(model, [disk.tool()], middleware=ordered(guard_first, other()))
    run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert not shown_to(model, UNSAFE)


@ORDERS
def test_a_picture_that_a_middleware_adds_and_that_passes_is_shown(
    guard_first: bool, form: str
) -> None:
    class Shows(ShowsAPicture):
        def shown(self, request: Any) -> Any:
            return request.override(messages=[*request.messages, HumanMessage([picture("olive")])])

    model = script("Done.")
    agent = create_agent(model, middleware=ordered(guard_first, Shows()))
    state = run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert shown_to(model, "olive")
    assert state["messages"][-1].content == "Done."


def resume_all(agent: Any, answer: Any) -> dict[str, Any]:
    """Answer every question of HITL's, until there is none."""
    state = agent.invoke({"messages": [user("Go.", "navy")]}, CONFIG)
    while questions := state.get("__interrupt__"):
        answers = {q.id: answer(q.value) for q in questions}
        state = agent.invoke(Command(resume=answers), CONFIG)
    return state


def decide(value: dict[str, Any], decision: dict[str, Any]) -> dict[str, Any]:
    if "action_requests" in value:
        return {"decisions": [decision] * len(value["action_requests"])}
    return decision


MODES = pytest.mark.parametrize("mode", ["batched", "per_call"])


@ORDERS
@MODES
def test_a_humans_approval_is_no_pass(guard_first: bool, mode: Any, disk: Disk) -> None:
    human = HumanInTheLoopMiddleware({"act": True}, interrupt_mode=mode)
    agent = create_agent(
        script(ten(), "Done."),
        [disk.tool()],
        middleware=ordered(guard_first, human),
        checkpointer=InMemorySaver(),
    )
    resume_all(agent, lambda value: decide(value, {"type": "approve"}))
    assert disk.ran == [f"act-{x}" for x in range(10) if x not in BAD]


@ORDERS
@MODES
@pytest.mark.parametrize("x", [1, 2])
def test_what_a_human_has_edited_is_judged_as_edited(
    x: int, guard_first: bool, mode: Any, disk: Disk
) -> None:
    human = HumanInTheLoopMiddleware({"act": True}, interrupt_mode=mode)
    agent = create_agent(
        script(calls(("act", {"x": 9})), "Done."),
        [disk.tool()],
        middleware=ordered(guard_first, human),
        checkpointer=InMemorySaver(),
    )
    edit = {"type": "edit", "edited_action": {"name": "act", "args": {"x": x}}}
    state = resume_all(agent, lambda value: decide(value, edit))
    assert disk.ran == ([] if x in BAD else [f"act-{x}"])
    assert "a human reviewer replaced" in str(results(state["messages"])["call-1"].content)


@ORDERS
def test_an_edit_that_changes_the_tool_is_judged_as_that_tool(
    guard_first: bool, disk: Disk
) -> None:
    human = HumanInTheLoopMiddleware({"act": True})
    agent = create_agent(
        script(calls(("act", {"x": 9})), "Done."),
        [disk.tool(), disk.tool("bomb")],
        middleware=ordered(guard_first, human),
        checkpointer=InMemorySaver(),
    )
    edit = {"type": "edit", "edited_action": {"name": "bomb", "args": {"x": 1}}}
    state = resume_all(agent, lambda value: decide(value, edit))
    assert disk.ran == []
    assert "Not run" in str(results(state["messages"])["call-1"].content)


@ORDERS
def test_a_call_that_was_blocked_does_not_revive(guard_first: bool, form: str, disk: Disk) -> None:
    """A jump to the tools runs all calls of the last answer, those already answered, too."""

    class JumpsOnce(AgentMiddleware):
        @hook_config(can_jump_to=["tools"])
        def before_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
            jumped = sum(isinstance(m, ToolMessage) for m in state["messages"]) == 2
            return {"jump_to": "tools"} if jumped else None

    agent = create_agent(
        script(calls(("act", {"x": 1}), ("act", {"x": 2})), "Done."),
        [disk.tool()],
        middleware=ordered(guard_first, JumpsOnce()),
    )
    run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert disk.ran == ["act-1", "act-1"]


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_a_human_a_rewriter_and_a_jump_in_every_order(order: Any, disk: Disk) -> None:
    guard = SafeCoDeMiddleware(judge_of(calls=bad_is_unsafe))
    human = HumanInTheLoopMiddleware({"act": True}, interrupt_mode="per_call")
    listed = [guard, human, RewritesCalls()]
    agent = create_agent(
        script(ten(), "Done."),
        [disk.tool()],
        middleware=[listed[i] for i in order],
        checkpointer=InMemorySaver(),
    )
    resume_all(agent, lambda value: decide(value, {"type": "approve"}))
    assert disk.ran == sorted(f"act-{x}" for x in range(1, 11) if x not in BAD)


def test_listed_twice_under_two_names_both_must_let_it_pass(form: str, disk: Disk) -> None:
    def odd(name: str, args: dict[str, Any]) -> float:
        return 0.9 if args["x"] % 2 else 0.1

    first, second = judge_of(calls=bad_is_unsafe), judge_of(calls=odd)
    agent = create_agent(
        script(ten(), "Done."),
        [disk.tool()],
        middleware=[SafeCoDeMiddleware(first), SafeCoDeMiddleware(second, name="other")],
    )
    state = run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert disk.ran == ["act-0", "act-4", "act-6", "act-8"]
    assert len(asked(first, "tool_call")) == len(asked(second, "tool_call")) == 10
    assert any(key.startswith("other/tool_call") for key in state["safecode_verdicts"])


def test_the_same_guard_twice_is_refused_by_the_agent() -> None:
    with pytest.raises(AssertionError, match="duplicate"):
        create_agent(
            script("Hi."),
            middleware=[SafeCoDeMiddleware(judge_of()), SafeCoDeMiddleware(judge_of())],
        )
