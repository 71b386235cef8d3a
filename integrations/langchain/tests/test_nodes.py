"""Building blocks for graphs of one's own: judge, branch, ask, go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command
from pydantic import BaseModel, ConfigDict
from safecode_guard_langchain import (
    VerdictState,
    goto_by_action,
    guard_node,
    guard_tools,
    review_node,
    verdicts_in,
)
from safecode_guard_langchain.testing import calls, results
from support import UNSAFE, Disk, asked, judge_of, picture, png, run_in, user

from safecode_guard import JudgeError, Policy, PolicyError, SafeCoDeCheck, Verdict, verdict_edge
from safecode_guard.testing import ScriptedJudge

CONFIG: dict[str, Any] = {"configurable": {"thread_id": "1"}}
WHERE = {"pass": "yes", "guide": "yes", "review": "ask", "block": "no"}


class State(MessagesState, VerdictState):
    pass


def says(text: str) -> Any:
    return lambda state: {"messages": [AIMessage(text)]}


def gated(stage: Any, judge: Any, policy: Any = None, *, ask: bool = True, **fields: Any) -> Any:
    """Return a graph: judge, then yes, no, or ask and judge where that leads."""
    graph = StateGraph(State)
    graph.add_node("guard", guard_node(judge, policy, stage=stage))
    graph.add_node("yes", says("yes"))
    graph.add_node("no", says("no"))
    graph.add_node("ask", review_node(stage=stage) if ask else says("asked"))
    graph.add_edge(START, "guard")
    graph.add_conditional_edges("guard", verdict_edge(WHERE, stage=stage))
    if ask:
        graph.add_conditional_edges("ask", verdict_edge({**WHERE, "review": END}, stage=stage))
    else:
        graph.add_edge("ask", END)
    graph.add_edge("yes", END)
    graph.add_edge("no", END)
    return graph.compile(**fields)


@pytest.mark.parametrize(("p", "says"), [(0.1, "yes"), (0.9, "no")])
def test_a_turn_is_judged_and_branched_on(p: float, says: str, form: str) -> None:
    app = gated("input", ScriptedJudge(p))
    assert run_in(form, app, {"messages": [user("Go.", "navy")]})["messages"][-1].content == says


def test_text_alone_passes(form: str) -> None:
    judge = ScriptedJudge(0.9)
    state = run_in(form, gated("input", judge), {"messages": [HumanMessage("Go.")]})
    assert state["messages"][-1].content == "yes"
    assert judge.requests == []


def test_the_verdict_of_an_earlier_turn_does_not_count(form: str) -> None:
    policy = {"routing": {"history_images": 0}}
    app = gated("input", judge_of(), policy, checkpointer=InMemorySaver())
    state = run_in("invoke", app, {"messages": [user("Go.", UNSAFE)]}, CONFIG)
    assert state["messages"][-1].content == "no"
    later = {"messages": [HumanMessage("And what is the weather like today?")]}
    assert run_in(form, app, later, CONFIG)["messages"][-1].content == "yes"


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_a_held_turn_goes_where_the_human_says(decision: str, form: str) -> None:
    app = gated("input", ScriptedJudge(JudgeError("down")), checkpointer=InMemorySaver())
    state = run_in("invoke", app, {"messages": [user("Go.", "navy")]}, CONFIG)
    assert state["__interrupt__"][0].value["type"] == "verdict_approval"
    resume = Command(resume={"type": decision, "by": "ada"})
    state = run_in(form, app, resume, CONFIG)
    assert state["messages"][-1].content == ("yes" if decision == "approve" else "no")
    assert verdicts_in(state, "input")[0].review.by == "ada"


def test_without_a_checkpointer_a_question_counts_as_a_no(form: str) -> None:
    app = gated("input", ScriptedJudge(JudgeError("down")))
    state = run_in(form, app, {"messages": [user("Go.", "navy")]})
    assert state["messages"][-1].content == "no"
    assert verdicts_in(state, "input")[0].review.by == "nobody"


def test_calls_are_judged_in_a_node_and_let_through_in_the_tools(form: str, disk: Disk) -> None:
    judge = judge_of(calls=lambda name, args: 0.9 if args["x"] == 2 else 0.1)
    graph = StateGraph(State)
    graph.add_node("guard", guard_node(judge, stage="tool_call"))
    graph.add_node("tools", ToolNode(guard_tools([disk.tool()], judge)))
    graph.add_edge(START, "guard")
    nodes = {"pass": "tools", "guide": "tools", "review": END, "block": "tools"}
    graph.add_conditional_edges("guard", verdict_edge(nodes, stage="tool_call"))
    graph.add_edge("tools", END)
    proposed = calls(("act", {"x": 1}), ("act", {"x": 2}))
    state = run_in(form, graph.compile(), {"messages": [user("Go.", "navy"), proposed]})
    assert disk.ran == ["act-1"]
    assert len(asked(judge, "tool_call")) == 2
    assert results(state["messages"])["call-2"].status == "error"


def test_of_several_calls_the_gravest_decides_where_to_go(form: str) -> None:
    judge = judge_of(calls=lambda name, args: 0.9 if args["x"] == 1 else 0.1)
    app = gated("tool_call", judge)
    proposed = calls(("act", {"x": 1}), ("act", {"x": 2}))
    state = run_in(form, app, {"messages": [user("Go.", "navy"), proposed]})
    assert state["messages"][-1].content == "no"
    other = calls(("act", {"x": 3}), first_id="other")
    app = gated("tool_call", judge)
    state = run_in(form, app, {"messages": [user("Go.", "navy"), other]})
    assert state["messages"][-1].content == "yes"


def test_an_approval_in_a_node_lets_the_call_through(disk: Disk) -> None:
    judge = judge_of(calls=lambda name, args: 0.5)
    graph = StateGraph(State)
    graph.add_node("guard", guard_node(judge, stage="tool_call"))
    graph.add_node("ask", review_node(stage="tool_call"))
    graph.add_node("tools", ToolNode(guard_tools([disk.tool()], judge)))
    graph.add_edge(START, "guard")
    graph.add_edge("guard", "ask")
    graph.add_edge("ask", "tools")
    graph.add_edge("tools", END)
    app = graph.compile(checkpointer=InMemorySaver())
    app.invoke({"messages": [user("Go.", "navy"), calls(("act", {"x": 1}))]}, CONFIG)
    state = app.invoke(Command(resume={"type": "approve"}), CONFIG)
    assert "__interrupt__" not in state
    assert disk.ran == ["act-1"]


def test_pictures_of_results_are_withheld_under_their_own_id(form: str) -> None:
    app = gated("tool_result", judge_of())
    photo = ToolMessage([picture(UNSAFE)], tool_call_id="call-1", id="photo", name="look")
    fine = ToolMessage([picture("olive")], tool_call_id="call-2", id="fine", name="look")
    proposed = calls(("look", {}), ("look", {}))
    state = run_in(form, app, {"messages": [user("Go."), proposed, photo, fine]})
    by_id = {m.id: m for m in state["messages"]}
    assert png(UNSAFE) not in str(by_id["photo"])
    assert by_id["fine"].content == fine.content
    assert by_id["photo"].status == "error"


@pytest.mark.parametrize("action", ["block", "review"])
def test_an_answer_is_replaced_under_its_own_id(action: str, form: str) -> None:
    judge = judge_of(answers=lambda text: 0.9 if "secret" in text else 0.1)
    policy = {"actions": {"unsafe": action}}
    app = gated("output", judge, policy, ask=False)
    given = {"messages": [user("Go.", "navy"), AIMessage("a secret", id="said")]}
    state = run_in(form, app, given)
    by_id = {m.id: m for m in state["messages"]}
    assert "secret" not in str(by_id["said"].content)
    assert Verdict.from_message(by_id["said"]).action == action
    assert state["messages"][-1].content == ("no" if action == "block" else "asked")


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_a_held_answer_is_given_back_or_refused(decision: str, form: str) -> None:
    judge = judge_of(answers=lambda text: 0.9)
    policy = {"actions": {"unsafe": "review"}}
    app = gated("output", judge, policy, checkpointer=InMemorySaver())
    given = {"messages": [user("Go.", "navy"), AIMessage("a secret", id="said")]}
    run_in("invoke", app, given, CONFIG)
    state = run_in(form, app, Command(resume={"type": decision}), CONFIG)
    said = next(m for m in state["messages"] if m.id == "said")
    assert (said.content == "a secret") is (decision == "approve")
    assert state["messages"][-1].content == ("yes" if decision == "approve" else "no")


@dataclass
class AsDataclass:
    messages: list[Any] = field(default_factory=list)
    safecode_verdicts: dict[str, Any] = field(default_factory=dict)


class AsModel(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    messages: list[Any] = []
    safecode_verdicts: dict[str, Any] = {}


@pytest.mark.parametrize("schema", [AsDataclass, AsModel])
def test_states_of_other_forms(schema: Any, form: str) -> None:
    graph = StateGraph(schema)
    graph.add_node("guard", guard_node(judge_of()))
    graph.add_node("no", lambda state: {"messages": ["no"]})
    graph.add_edge(START, "guard")
    graph.add_conditional_edges(
        "guard", verdict_edge({"pass": END, "guide": END, "review": END, "block": "no"})
    )
    state = run_in(form, graph.compile(), {"messages": [user("Go.", UNSAFE)]})
    assert state["messages"] == ["no"]


def test_a_turn_that_cannot_be_read_is_blocked(form: str) -> None:
    from langchain_core.messages import ChatMessage

    app = gated("input", judge_of())
    odd = ChatMessage([picture("navy")], role="oracle")
    assert run_in(form, app, {"messages": [odd]})["messages"][-1].content == "no"


def test_a_command_goes_by_the_action(form: str) -> None:
    check = SafeCoDeCheck(judge=judge_of(), policy=Policy(mode="judge_only"))

    def gate(state: State) -> Command[Any]:
        return goto_by_action(check.check(state["messages"]), WHERE)

    graph = StateGraph(State)
    graph.add_node("gate", gate, destinations=("yes", "no", "ask"))
    for name in ("yes", "no", "ask"):
        graph.add_node(name, says(name))
    graph.add_edge(START, "gate")
    app = graph.compile()
    assert run_in(form, app, {"messages": [user("Go.", UNSAFE)]})["messages"][-1].content == "no"
    assert run_in(form, app, {"messages": [user("Go.", "navy")]})["messages"][-1].content == "yes"


def test_a_humans_decision_stands_above_the_action() -> None:
    from datetime import UTC, datetime

    from safecode_guard.verdict import PolicyRef, Review

    verdict = Verdict(label=None, action="review", policy=PolicyRef(name="p", digest="d"))
    review = Review(decision="approve", by="ada", at=datetime.now(UTC))
    assert goto_by_action(verdict, WHERE).goto == "ask"
    assert goto_by_action(verdict.model_copy(update={"review": review}), WHERE).goto == "yes"


def test_what_does_not_exist_is_refused_at_once() -> None:
    with pytest.raises(PolicyError, match="Unknown stage 'inputs'"):
        guard_node(judge_of(), stage="inputs")  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="Unknown stage"):
        review_node(stage="x")  # type: ignore[arg-type]
    verdict = SafeCoDeCheck(judge=judge_of()).check([user("Go.", "navy")])
    with pytest.raises(PolicyError, match="Unknown action 'passes'"):
        goto_by_action(verdict, {"passes": "x"})  # type: ignore[dict-item]
    with pytest.raises(PolicyError, match="No node for guide"):
        goto_by_action(verdict, {"block": "x"})


class Forms(VerdictState):
    messages: list[Any]


@pytest.mark.parametrize(
    "given",
    [
        {"role": "user", "content": [picture(UNSAFE), {"type": "text", "text": "Go on."}]},
        ("user", [picture(UNSAFE), {"type": "text", "text": "Go on."}]),
        user("Go on.", UNSAFE),
    ],
    ids=["mapping", "pair", "message"],
)
def test_messages_in_any_form_are_judged(given: Any, form: str) -> None:
    judge = judge_of()
    app = went_to(Forms, judge)
    assert run_in(form, app, {"messages": [given]})["messages"] == ["no"]
    assert len(judge.requests) == 1


@pytest.mark.parametrize("schema", [VerdictState, MessagesState, Forms])
def test_a_state_without_a_place_for_messages_or_verdicts_is_an_error(
    schema: Any, form: str
) -> None:
    given = {"messages": [user("Go on.", UNSAFE) if schema is not Forms else {"text": "Go on."}]}
    with pytest.raises(PolicyError, match=r"class State\(MessagesState, VerdictState\)"):
        run_in(form, went_to(schema, judge_of()), given)


def went_to(schema: Any, judge: Any) -> Any:
    """Return a graph that says whether the turn was let through."""
    graph = StateGraph(schema)
    graph.add_node("guard", guard_node(judge))
    graph.add_node("yes", lambda state: {"messages": ["yes"]})
    graph.add_node("no", lambda state: {"messages": ["no"]})
    graph.add_edge(START, "guard")
    graph.add_conditional_edges(
        "guard", verdict_edge({"pass": "yes", "guide": "yes", "review": "no", "block": "no"})
    )
    return graph.compile()


@pytest.mark.parametrize("first", [1, 2])
def test_of_two_calls_with_one_id_the_gravest_counts(first: int, form: str) -> None:
    judge = judge_of(calls=lambda name, args: 0.9 if args["x"] == 2 else 0.1)
    app = gated("tool_call", judge)
    call = {"name": "act", "id": "same", "type": "tool_call"}
    made = [{**call, "args": {"x": x}} for x in (first, 3 - first)]
    given = {"messages": [user("Go.", "navy"), AIMessage("", tool_calls=made)]}
    assert run_in(form, app, given)["messages"][-1].content == "no"


def test_a_call_that_is_never_judged_has_a_verdict_that_says_so(form: str) -> None:
    graph = StateGraph(State)
    graph.add_node("guard", guard_node(judge_of(), stage="tool_call", tool_policies={"s*": "skip"}))
    graph.add_node("yes", says("yes"))
    graph.add_node("no", says("no"))
    graph.add_edge(START, "guard")
    nodes = {**WHERE, "review": "no"}
    graph.add_conditional_edges("guard", verdict_edge(nodes, stage="tool_call"))
    state = run_in(form, graph.compile(), {"messages": [user("Go."), calls(("stop", {}))]})
    assert state["messages"][-1].content == "yes"
    assert [(v.label, v.action) for v in verdicts_in(state, "tool_call")] == [(None, "pass")]
