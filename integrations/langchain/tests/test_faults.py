"""A judge that fails, is late or talks nonsense never lets anything pass."""

from __future__ import annotations

import math
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from safecode_guard_langchain import SafeCoDeMiddleware, verdicts_in
from safecode_guard_langchain.testing import calls, results
from support import Disk, picture, png, run_in, script, shown_to, user

from safecode_guard import BaseJudge, JudgeError, Judgement, JudgeRequest
from safecode_guard.testing import ScriptedJudge
from safecode_guard.testing.judge import Delay

ANSWER = "the answer itself"
STAGES = ("input", "tool_call", "tool_result", "output")


class Broken(BaseJudge):
    """A judge that does something else than judging, at one stage."""

    id = "broken"

    def __init__(self, stage: str, act: Any) -> None:
        self.stage, self.act = stage, act

    def judge(self, request: JudgeRequest) -> Any:
        if request.stage == self.stage:
            return self.act(request)
        return Judgement(judge_id=self.id, prompt_version="1", p_unsafe=0.1)


def raising(error: BaseException) -> Any:
    def act(request: JudgeRequest) -> Any:
        raise error

    return act


def finding(**fields: Any) -> Any:
    return lambda request: Judgement.model_construct(
        judge_id="broken", prompt_version="1", **fields
    )


FAULTS = {
    "error": raising(JudgeError("down")),
    "foreign error": raising(RuntimeError("down")),
    "system exit in a thread": raising(MemoryError()),
    "nothing": lambda request: None,
    "text": lambda request: "safe",
    "a label": lambda request: True,
    "not a number": finding(p_unsafe=math.nan),
    "out of range": finding(p_unsafe=-3.0),
    "a label that is none": finding(label="harmless"),
    "neither": finding(),
    "both": finding(label="safe", failed="broken"),
}
POLICIES = ["balanced", "strict", "permissive"]


def agent_with(stage: str, judge: Any, disk: Disk, policy: Any, **fields: Any) -> tuple[Any, Any]:
    model = script(calls(("act", {"x": 1})), ANSWER)
    tool = disk.tool(gives=[picture("olive")])
    middleware = SafeCoDeMiddleware(judge, policy=policy)
    return create_agent(model, [tool], middleware=[middleware], **fields), model


def check(stage: str, state: Any, model: Any, disk: Disk) -> None:
    """Nothing of what the judge failed on has happened."""
    if stage == "input":
        assert model.shown == []
    if stage in ("input", "tool_call"):
        assert disk.ran == []
    if stage in ("input", "tool_call", "tool_result"):
        assert not shown_to(model, "olive")
        assert png("olive") not in str(state["messages"])
    if stage == "output":
        assert ANSWER not in str(state["messages"])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("form", ["invoke", "ainvoke"])
def test_a_judge_that_fails(stage: str, fault: str, policy: str, form: str, disk: Disk) -> None:
    judge = Broken(stage, FAULTS[fault])
    agent, model = agent_with(stage, judge, disk, policy)
    state = run_in(form, agent, {"messages": [user("Go.", "navy")]})
    check(stage, state, model, disk)
    told = verdicts_in(state, stage)
    assert told
    assert all(v.standing in ("review", "block") for v in told)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("form", ["invoke", "ainvoke"])
def test_a_judge_that_is_late(stage: str, form: str, disk: Disk) -> None:
    judge = ScriptedJudge(lambda r: Delay(30.0, 0.1) if r.stage == stage else 0.1)
    agent, model = agent_with(stage, judge, disk, {"judge": {"timeout_s": 0.05}})
    state = run_in(form, agent, {"messages": [user("Go.", "navy")]})
    check(stage, state, model, disk)


@pytest.mark.parametrize(
    "reply", ["", "banana", '{"label": "sa', '{"label": "safe", "p": 2}', "42"]
)
@pytest.mark.parametrize("form", ["invoke", "ainvoke"])
def test_a_chat_model_that_does_not_judge(reply: str, form: str, disk: Disk) -> None:
    judge = FakeListChatModel(responses=[reply])
    agent, model = agent_with("input", judge, disk, "strict")
    state = run_in(form, agent, {"messages": [user("Go.", "navy")]})
    check("input", state, model, disk)


@pytest.mark.parametrize("form", ["invoke", "ainvoke"])
def test_a_deadline_that_has_passed_is_no_pass(form: str, disk: Disk) -> None:
    judge = ScriptedJudge(lambda r: Delay(30.0, 0.1))
    agent, model = agent_with("input", judge, disk, {"deadline_s": 0.01})
    state = run_in(form, agent, {"messages": [user("Go.", "navy")]})
    check("input", state, model, disk)


@pytest.mark.parametrize("stage", ["tool_call", "tool_result"])
def test_with_somebody_to_ask_it_is_held(stage: str, disk: Disk) -> None:
    judge = Broken(stage, raising(JudgeError("down")))
    agent, model = agent_with(stage, judge, disk, None, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    state = agent.invoke({"messages": [user("Go.", "navy")]}, config)
    assert "the check failed" in state["__interrupt__"][0].value["description"]
    check(stage, state, model, disk)


def test_the_reason_is_in_the_message(disk: Disk) -> None:
    judge = Broken("tool_call", raising(JudgeError("the judge is down")))
    agent, _ = agent_with("tool_call", judge, disk, "strict")
    state = agent.invoke({"messages": [user("Go.", "navy")]})
    assert "the check failed" in results(state["messages"])["call-1"].content


def test_a_turn_that_cannot_be_read_says_why() -> None:
    from langchain_core.messages import ChatMessage

    model = script("Hi.")
    agent = create_agent(model, middleware=[SafeCoDeMiddleware(ScriptedJudge(0.1))])
    odd = ChatMessage([picture("navy")], role="oracle")
    state = agent.invoke({"messages": [odd, HumanMessage("Go.")]})
    assert model.shown == []
    [verdict] = verdicts_in(state, "input")
    assert "oracle" in verdict.media_skipped[0].reason
