"""Calls held for review: a human is asked, once, and what they say is done and recorded."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from safecode_guard_langchain import SafeCoDeMiddleware, verdicts_in
from safecode_guard_langchain.testing import calls, results
from support import Disk, asked, judge_of, script, user

CONFIG: dict[str, Any] = {"configurable": {"thread_id": "1"}}
SYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def held(name: str, args: dict[str, Any]) -> Any:
    """Judge x below 10 undecided, 10 to 19 safe, and the rest unsafe."""
    x = args.get("x", 0)
    return 0.5 if x < 10 else 0.1 if x < 20 else 0.9


def agent_for(disk: Disk, judge: Any, *xs: int, checkpointer: Any = None, **fields: Any) -> Any:
    proposed = calls(*[("act", {"x": x}) for x in xs])
    return create_agent(
        script(proposed, "Done."),
        [disk.tool()],
        middleware=[SafeCoDeMiddleware(judge, **fields)],
        checkpointer=checkpointer or InMemorySaver(),
    )


def go(is_async: bool, agent: Any, given: Any, config: Any = CONFIG) -> dict[str, Any]:
    if is_async:
        return asyncio.run(agent.ainvoke(given, config))
    return agent.invoke(given, config)


def start(is_async: bool, agent: Any) -> dict[str, Any]:
    return go(is_async, agent, {"messages": [user("Go.", "navy")]})


@SYNC
def test_the_question_has_the_shape_of_a_tool_approval(is_async: bool, disk: Disk) -> None:
    state = start(is_async, agent_for(disk, judge_of(calls=held), 1, 11))
    [question] = state["__interrupt__"]
    value = question.value
    assert {key: value[key] for key in ("type", "tool_call_id", "name", "args")} == {
        "type": "tool_approval",
        "tool_call_id": "call-1",
        "name": "act",
        "args": {"x": 1},
    }
    assert value["description"].startswith("Held before it runs: judged undecided")
    assert value["safecode"]["label"] == "undecided"
    assert value["safecode"]["tool_call"]["args_sha256"]
    assert "base64" not in json.dumps(value)
    kinds = [branch["properties"]["type"]["const"] for branch in question.response_schema["oneOf"]]
    assert kinds == ["approve", "edit", "reject"]
    assert disk.ran == ["act-11"]


@SYNC
def test_an_approved_call_runs_and_the_judge_is_not_asked_again(is_async: bool, disk: Disk) -> None:
    judge = judge_of(calls=held)
    agent = agent_for(disk, judge, 1, 11)
    start(is_async, agent)
    before = len(asked(judge, "tool_call"))
    state = go(is_async, agent, Command(resume={"type": "approve", "by": "ada"}))
    assert disk.ran == ["act-1", "act-11"]  # the sibling once
    assert len(asked(judge, "tool_call")) == before == 2
    [verdict] = [v for v in verdicts_in(state, "tool_call") if v.tool_call.id == "call-1"]
    assert (verdict.review.decision, verdict.review.by) == ("approve", "ada")
    assert verdict.review.at >= verdict.created_at
    assert verdict.action == "review"
    assert verdict.standing == "pass"


@SYNC
def test_a_rejected_call_does_not_run_and_the_reason_is_told(is_async: bool, disk: Disk) -> None:
    agent = agent_for(disk, judge_of(calls=held), 1)
    start(is_async, agent)
    answer = {"type": "reject", "by": "ada", "message": "too hot"}
    state = go(is_async, agent, Command(resume=answer))
    assert disk.ran == []
    told = results(state["messages"])["call-1"]
    assert (told.content, told.status) == ("Not run: rejected by ada: too hot.", "error")
    assert verdicts_in(state, "tool_call")[0].standing == "block"


@SYNC
def test_an_edited_call_is_judged_again_and_runs_if_it_passes(is_async: bool, disk: Disk) -> None:
    judge = judge_of(calls=held)
    agent = agent_for(disk, judge, 1)
    start(is_async, agent)
    edit = {"type": "edit", "edited_action": {"name": "act", "args": {"x": 12}}}
    state = go(is_async, agent, Command(resume=edit))
    assert disk.ran == ["act-12"]
    assert [r.tool_call.arguments for r in asked(judge, "tool_call")] == [{"x": 1}, {"x": 12}]
    told = results(state["messages"])["call-1"].content
    assert told.startswith('[a reviewer changed this call before it ran; what ran is: act {"x":12}')
    [verdict] = verdicts_in(state, "tool_call")
    assert (verdict.review.decision, verdict.label) == ("edit", "safe")


@SYNC
@pytest.mark.parametrize("x", [2, 22], ids=["undecided", "unsafe"])
def test_an_edited_call_that_does_not_pass_is_not_run(is_async: bool, x: int, disk: Disk) -> None:
    agent = agent_for(disk, judge_of(calls=held), 1)
    start(is_async, agent)
    edit = {"type": "edit", "edited_action": {"name": "act", "args": {"x": x}}}
    state = go(is_async, agent, Command(resume=edit))
    assert disk.ran == []
    assert "as it was edited" in results(state["messages"])["call-1"].content


BAD_ANSWERS = [
    "yes",
    [None],
    True,
    {"type": "ok"},
    {"type": "edit"},
    {"type": "edit", "edited_action": {"name": "other", "args": {}}},
    {"type": "edit", "edited_action": {"name": "act", "args": "x"}},
    {"decisions": [{"type": "approve"}]},
    {"type": "approve", "by": 7},
    [{"type": "approve"}],
]


@SYNC
@pytest.mark.parametrize("answer", BAD_ANSWERS, ids=str)
def test_an_answer_that_cannot_be_read_runs_nothing_and_is_asked_for_again(
    is_async: bool, answer: Any, disk: Disk
) -> None:
    agent = agent_for(disk, judge_of(calls=held), 1)
    start(is_async, agent)
    state = go(is_async, agent, Command(resume=answer))
    assert disk.ran == []
    assert "could not be read" in state["__interrupt__"][0].value["description"]
    go(is_async, agent, Command(resume={"type": "approve"}))
    assert disk.ran == ["act-1"]


def test_answers_that_are_never_readable_count_as_a_no(disk: Disk) -> None:
    agent = agent_for(disk, judge_of(calls=held), 1)
    state = start(False, agent)
    for _ in range(3):
        assert "__interrupt__" in state
        state = agent.invoke(Command(resume="?"), CONFIG)
    assert disk.ran == []
    assert "could not be read" in results(state["messages"])["call-1"].content


@SYNC
def test_each_call_is_answered_by_its_own_question(is_async: bool, disk: Disk) -> None:
    judge = judge_of(calls=held)
    agent = agent_for(disk, judge, 1, 2, 3)
    questions = start(is_async, agent)["__interrupt__"]
    assert len(questions) == 3
    by_x = {question.value["args"]["x"]: question.id for question in questions}
    state = go(is_async, agent, Command(resume={by_x[2]: {"type": "approve"}}))
    assert disk.ran == ["act-2"]
    left = {question.value["args"]["x"] for question in state["__interrupt__"]}
    assert left == {1, 3}
    rest = {by_x[1]: {"type": "reject"}, by_x[3]: {"type": "approve"}}
    state = go(is_async, agent, Command(resume=rest))
    assert disk.ran == ["act-2", "act-3"]
    assert len(asked(judge, "tool_call")) == 3


@SYNC
def test_without_a_checkpointer_nothing_held_runs_and_the_run_goes_on(
    is_async: bool, disk: Disk
) -> None:
    agent = create_agent(
        script(calls(("act", {"x": 1}), ("act", {"x": 11})), "Done."),
        [disk.tool()],
        middleware=[SafeCoDeMiddleware(judge_of(calls=held))],
    )
    state = start(is_async, agent)
    assert disk.ran == ["act-11"]
    told = results(state["messages"])["call-1"]
    assert "nobody to ask" in told.content
    assert state["messages"][-1].content == "Done."


@SYNC
def test_a_judge_that_fails_holds_the_call(is_async: bool, disk: Disk) -> None:
    agent = agent_for(disk, judge_of(calls=lambda name, args: RuntimeError("down")), 1)
    [question] = start(is_async, agent)["__interrupt__"]
    assert "the check failed" in question.value["description"]
    assert disk.ran == []


def test_two_guards_ask_one_after_the_other(disk: Disk) -> None:
    judge = judge_of(calls=held)
    agent = create_agent(
        script(calls(("act", {"x": 1})), "Done."),
        [disk.tool()],
        middleware=[SafeCoDeMiddleware(judge), SafeCoDeMiddleware(judge, name="second")],
        checkpointer=InMemorySaver(),
    )
    start(False, agent)
    state = agent.invoke(Command(resume={"type": "approve"}), CONFIG)
    assert "__interrupt__" in state
    assert disk.ran == []
    agent.invoke(Command(resume={"type": "approve"}), CONFIG)
    assert disk.ran == ["act-1"]


@pytest.mark.parametrize("asks_first", [True, False])
def test_what_one_guards_human_has_edited_the_other_judges_too(
    asks_first: bool, disk: Disk
) -> None:
    def strict(name: str, args: dict[str, Any]) -> float:
        return 0.9 if args["x"] == 12 else 0.1

    agent = create_agent(
        script(calls(("act", {"x": 1})), "Done."),
        [disk.tool()],
        middleware=[
            SafeCoDeMiddleware(judge_of(calls=held if asks_first else strict)),
            SafeCoDeMiddleware(judge_of(calls=strict if asks_first else held), name="second"),
        ],
        checkpointer=InMemorySaver(),
    )
    start(False, agent)
    edit = {"type": "edit", "edited_action": {"name": "act", "args": {"x": 12}}}
    state = agent.invoke(Command(resume=edit), CONFIG)
    assert disk.ran == []
    assert "judged unsafe" in results(state["messages"])["call-1"].content
