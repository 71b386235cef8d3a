"""Tool calls: judged in their scene, enforced where the tool runs."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from safecode_guard_langchain import SafeCoDeMiddleware, verdicts_in
from safecode_guard_langchain.testing import calls, results
from support import Disk, asked, judge_of, run_in, script, user

from safecode_guard.testing import ScriptedJudge

TEN = [("act", {"x": x}) for x in range(10)]
BAD = {2, 5, 7}


def bad_is_unsafe(name: str, args: dict[str, Any]) -> float:
    return 0.9 if args.get("x") in BAD else 0.1


def test_of_ten_parallel_calls_exactly_the_three_blocked_do_not_run(form: str, disk: Disk) -> None:
    judge = judge_of(calls=bad_is_unsafe)
    agent = create_agent(
        script(calls(*TEN), "Done."), [disk.tool()], middleware=[SafeCoDeMiddleware(judge)]
    )
    state = run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert disk.ran == [f"act-{x}" for x in range(10) if x not in BAD]
    told = results(state["messages"])
    assert {id for id, message in told.items() if message.status == "error"} == {
        f"call-{x + 1}" for x in BAD
    }
    assert told["call-3"].content == "Not run: judged unsafe by policy 'balanced', p 0.90."
    assert len(asked(judge, "tool_call")) == 10


def test_a_call_is_judged_in_the_scene_it_belongs_to(form: str, disk: Disk) -> None:
    judge = ScriptedJudge(
        lambda r: 0.9 if r.stage == "tool_call" and r.scene.request == "burn it" else 0.1
    )
    agent = create_agent(
        script(calls(("act", {"x": 1})), "Done."),
        [disk.tool()],
        middleware=[SafeCoDeMiddleware(judge)],
    )
    run_in(form, agent, {"messages": [user("burn it", "navy")]})
    assert disk.ran == []
    [request] = asked(judge, "tool_call")
    assert len(request.scene.images) == 1
    run_in(form, agent, {"messages": [user("dry it", "navy")]})
    assert disk.ran == ["act-1"]


def test_the_scene_of_a_call_is_the_newest_pictures_and_not_the_message_that_makes_it(
    disk: Disk,
) -> None:
    judge = judge_of()
    agent = create_agent(
        script(calls(("act", {"x": 1}), say="I shall act now."), "Done."),
        [disk.tool()],
        middleware=[SafeCoDeMiddleware(judge, scene_images=2)],
    )
    agent.invoke({"messages": [user("Go.", "navy", "teal", "olive")]})
    [request] = asked(judge, "tool_call")
    assert [image.pixels.getpixel((0, 0)) for image in request.scene.images] == [
        (0, 128, 128),
        (128, 128, 0),
    ]
    assert "I shall act" not in request.scene.instruction


def test_a_judged_call_is_not_judged_again_where_it_runs(form: str, disk: Disk) -> None:
    judge = judge_of()
    middleware = SafeCoDeMiddleware(judge)
    middleware._agent.rails.examiner.cache.size = 0
    agent = create_agent(script(calls(*TEN[:3]), "Done."), [disk.tool()], middleware=[middleware])
    run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert len(asked(judge, "tool_call")) == 3


def test_tools_by_name_and_pattern_fall_under_policies_of_their_own(form: str, disk: Disk) -> None:
    judge = judge_of(calls=lambda name, args: 0.5)  # undecided
    tools = [disk.tool(name) for name in ("get_a", "get_b", "stop", "act")]
    agent = create_agent(
        script(calls(*[(tool.name, {"x": 1}) for tool in tools]), "Done."),
        tools,
        middleware=[
            SafeCoDeMiddleware(
                judge,
                policy={"actions": {"undecided": "block"}},
                tool_policies={
                    "stop": "skip",
                    "get_a": "strict",
                    "get_*": {"name": "lenient", "thresholds": {"unsafe": 0.6, "safe": 0.55}},
                },
            )
        ],
    )
    state = run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert disk.ran == ["get_b-1", "stop-1"]
    names = {v.tool_call.name: v.policy.name for v in verdicts_in(state, "tool_call")}
    assert names == {"get_a": "strict", "get_b": "lenient", "act": "balanced"}


def test_what_a_server_says_of_its_tool_loosens_nothing(disk: Disk) -> None:
    hints = {"mcp": {"tool": {"annotations": {"readOnlyHint": True, "read_only_hint": True}}}}
    agent = create_agent(
        script(calls(("act", {"x": 2})), "Done."),
        [disk.tool(metadata=hints)],
        middleware=[SafeCoDeMiddleware(judge_of(calls=bad_is_unsafe))],
    )
    agent.invoke({"messages": [user("Go.", "navy")]})
    assert disk.ran == []


def test_calls_without_pictures_are_judged_too(form: str, disk: Disk) -> None:
    agent = create_agent(
        script(calls(("act", {"x": 2})), "Done."),
        [disk.tool()],
        middleware=[SafeCoDeMiddleware(judge_of(calls=bad_is_unsafe))],
    )
    run_in(form, agent, {"messages": [HumanMessage("Go.")]})
    assert disk.ran == []


def test_an_id_that_was_used_before_is_no_pass(form: str, disk: Disk) -> None:
    """The verdict is bound to the arguments, and to the scene in which they were judged."""
    judge = judge_of(calls=bad_is_unsafe)
    first = calls(("act", {"x": 1}), first_id="same")
    second = calls(("act", {"x": 2}), first_id="same")
    agent = create_agent(
        script(first, second, "Done."), [disk.tool()], middleware=[SafeCoDeMiddleware(judge)]
    )
    run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert disk.ran == ["act-1"]


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"x": None},
        {"x": 10**40},
        {"x": "\ud800"},
        {"x": [[[{"deep": [1, 2, {"er": None}]}]]]},
        {"x": float("nan")},
        {"x": {1: "a", "1": "b"}},
        {"x": b"bytes"},
        {"x": object()},
        {"x": "é" * 10_000},
    ],
    ids=["none", "null", "huge", "surrogate", "nested", "nan", "keys", "bytes", "object", "long"],
)
def test_arguments_of_any_kind_are_judged_or_refused(args: dict[str, Any], disk: Disk) -> None:
    judge = judge_of(calls=lambda name, args: 0.9)
    agent = create_agent(
        script(calls(("act", args)), "Done."),
        [disk.tool()],
        middleware=[SafeCoDeMiddleware(judge)],
    )
    state = agent.invoke({"messages": [user("Go.", "navy")]})
    assert disk.ran == []
    [told] = results(state["messages"]).values()
    assert told.status == "error"
    assert told.content.startswith("Not run: ")


def test_arguments_that_refer_to_themselves_are_refused_with_the_reason(disk: Disk) -> None:
    knot: dict[str, Any] = {}
    knot["x"] = knot
    request = {"name": "act", "args": knot, "id": "knot", "type": "tool_call"}
    from safecode_guard_langchain import guard_tools

    [tool] = guard_tools([disk.tool()], judge_of())
    told = tool.invoke(request)
    assert disk.ran == []
    assert "refer to themselves" in told.content


def test_a_call_of_an_unknown_tool_fails_as_it_did_without_a_guard(form: str, disk: Disk) -> None:
    def told(*middleware: Any) -> str:
        agent = create_agent(
            script(calls(("fly", {})), "Done."), [disk.tool()], middleware=middleware
        )
        state = run_in(form, agent, {"messages": [user("Go.", "navy")]})
        return results(state["messages"])["call-1"].content

    assert told(SafeCoDeMiddleware(judge_of())) == told()


def test_a_call_without_an_id_is_judged(disk: Disk) -> None:
    reply = calls(("act", {"x": 2}))
    reply.tool_calls[0]["id"] = None
    judge = judge_of(calls=bad_is_unsafe)
    agent = create_agent(
        script(reply, "Done."), [disk.tool()], middleware=[SafeCoDeMiddleware(judge)]
    )
    with pytest.raises(Exception, match="unexpected type"):  # as without a guard
        agent.invoke({"messages": [user("Go.", "navy")]})
    assert disk.ran == []


def test_calls_may_go_unjudged_by_request(form: str, disk: Disk) -> None:
    judge = judge_of(calls=bad_is_unsafe)
    agent = create_agent(
        script(calls(("act", {"x": 2})), "Done."),
        [disk.tool()],
        middleware=[SafeCoDeMiddleware(judge, apply_to_tool_calls=False)],
    )
    run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert disk.ran == ["act-2"]
    assert asked(judge, "tool_call") == []
