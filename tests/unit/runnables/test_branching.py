"""Branching on verdicts in chains and graphs."""

from types import SimpleNamespace

import pytest
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableBranch, RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph

from safecode_guard.errors import PolicyError
from safecode_guard.judges.protocol import ToolCallSubject
from safecode_guard.policy import Policy
from safecode_guard.runnables.branching import action_of, is_action, route_by_action, verdict_edge
from safecode_guard.testing import EventRecorder
from safecode_guard.verdict import PolicyRef, ToolCallRef, Verdict, to_metadata
from tests.messages import ask
from tests.unit.runnables.guards import HELP, by_request, guarded

BLOCKING = Policy(actions={"unsafe": "block"})
NODES = {"block": END, "review": "human", "pass": END, "guide": END}


def verdict(action: str) -> Verdict:
    return Verdict(label="unsafe", action=action, policy=PolicyRef(name="t", digest="0"))


def message(*actions: str) -> AIMessage:
    return AIMessage("x", response_metadata=to_metadata(map(verdict, actions)))


def test_the_most_severe_action_counts_and_no_verdict_passes():
    assert action_of(message("guide", "block")) == "block"
    assert action_of(message("review", "guide")) == "review"
    assert action_of(verdict("review")) == "review"
    assert action_of(AIMessage("x")) == "pass"


def test_is_action_is_a_predicate_for_branches():
    held = is_action("block", "review")
    assert [held(message(a)) for a in ("block", "review", "guide")] == [True, True, False]
    branch = RunnableBranch(
        (held, RunnableLambda(lambda m: "escalated")), RunnableLambda(lambda m: m.text)
    )
    recorder = EventRecorder()
    assert (guarded() | branch).invoke(ask(), {"callbacks": [recorder]}) == HELP
    assert [v.action for v in recorder.verdicts] == ["guide"]
    assert (guarded(0.99, policy=BLOCKING) | branch).invoke(ask()) == "escalated"


def test_route_by_action():
    routes = {"block": RunnableLambda(lambda m: "blocked"), "review": RunnableLambda(lambda m: "?")}
    route = route_by_action(routes, default=StrOutputParser())
    assert (guarded(0.99, policy=BLOCKING) | route).invoke(ask()) == "blocked"
    assert (guarded() | route).invoke(ask()) == HELP
    assert route.invoke(verdict("review")) == "?"


async def test_route_by_action_takes_functions_and_runs_async():
    route = route_by_action({"block": lambda m: "blocked"}, default=lambda m: m.text)
    assert await (guarded() | route).ainvoke(ask()) == HELP


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: route_by_action({"block": str}), "No route for"),
        (lambda: route_by_action({"blok": str}, default=str), "Unknown action 'blok'"),
        (lambda: is_action("blok"), "Unknown action 'blok'"),
        (lambda: verdict_edge({"block": END}), "No node for"),
        (lambda: verdict_edge({**NODES, "stop": END}), "Unknown action 'stop'"),
    ],
)
def test_what_would_go_nowhere_is_refused_at_once(make, said):
    with pytest.raises(PolicyError, match=said):
        make()


@pytest.mark.parametrize("of", [dict, SimpleNamespace])
def test_an_edge_reads_states_of_both_kinds(of):
    edge = verdict_edge(NODES)
    assert edge(of(messages=[message("review")])) == "human"
    assert edge(of(messages=[message("review"), AIMessage("x")])) == END


def test_an_edge_in_a_graph():
    guard = guarded(by_request, policy=Policy(actions={"unsafe": "review"}))
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [guard.invoke(state["messages"])]})
    graph.add_node("human", lambda state: {"messages": [AIMessage("reviewed")]})
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", verdict_edge(NODES))
    graph.add_edge("human", END)
    app, recorder = graph.compile(), EventRecorder()
    safe = app.invoke({"messages": ask()}, {"callbacks": [recorder]})["messages"]
    assert safe[-1].text == HELP
    risky = app.invoke({"messages": ask("Run to the cliff?")})["messages"]
    assert risky[-1].text == "reviewed"
    assert [v.label for v in recorder.verdicts] == ["safe"]


def test_an_edge_reads_states_whose_messages_are_plain_data():
    edge = verdict_edge({action: action for action in NODES})
    plain = {"role": "user", "content": "And now?"}
    assert edge({"messages": [plain]}) == "pass"
    assert edge({"messages": [message("block"), plain]}) == "pass"  # said before it was judged
    kept = {"a": verdict("block").model_dump(mode="json")}
    assert edge({"messages": [plain], "safecode_verdicts": kept}) == "block"


def call(x: int, id: str | None) -> dict:
    return {"name": "act", "args": {"x": x}, "id": id, "type": "tool_call"}


def on_call(action: str, given: dict) -> dict:
    subject = ToolCallSubject.of(given)
    ref = ToolCallRef(id=subject.id, name=subject.name, args_sha256=subject.args_sha256())
    about = {"stage": "tool_call", "tool_call": ref}
    return verdict(action).model_copy(update=about).model_dump(mode="json")


ACT, OTHER, UNNAMED = call(1, "a"), call(2, "b"), call(1, None)


@pytest.mark.parametrize(
    ("calls", "kept", "goes"),
    [
        ([ACT], [("pass", ACT)], "pass"),
        ([ACT, OTHER], [("pass", ACT), ("block", OTHER)], "block"),
        ([ACT, OTHER], [("pass", ACT)], "block"),  # nobody judged the other
        ([ACT], [], "block"),
        ([ACT], [("pass", call(9, "a"))], "block"),  # judged was something else
        ([ACT], [("block", ACT), ("pass", ACT)], "block"),
        ([UNNAMED], [("block", UNNAMED)], "block"),
        ([UNNAMED], [("pass", UNNAMED)], "pass"),
        ([], [("block", ACT)], "pass"),
    ],
)
@pytest.mark.parametrize("written_out", [False, True])
def test_of_calls_the_gravest_counts_and_the_unjudged_are_blocked(calls, kept, goes, written_out):
    edge = verdict_edge({action: action for action in NODES}, stage="tool_call")
    answer = {"role": "assistant", "content": "", "tool_calls": calls}
    said = answer if written_out else AIMessage("", tool_calls=calls)
    entries = {str(number): on_call(*each) for number, each in enumerate(kept)}
    assert edge({"messages": [said], "safecode_verdicts": entries}) == goes


def test_an_edge_behind_no_guard_says_so():
    for stage in ("input", "tool_result", "output"):
        edge = verdict_edge(NODES, stage=stage)
        with pytest.raises(PolicyError, match="no guard has run"):
            edge({"messages": [AIMessage("x")], "safecode_verdicts": {}})
