"""The user's turn: judged before anything is done about it."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from safecode_guard_langchain import SafeCoDeMiddleware, verdicts_in
from safecode_guard_langchain.testing import ScriptedChatModel, calls
from support import UNSAFE, Disk, asked, judge_of, picture, run_in, script, shown_to, shows, user

from safecode_guard import (
    ChatTransformers,
    JudgeRequest,
    Policy,
    SafeCoDeCheck,
    SafeCoDeGuard,
    TurnBlocked,
    Verdict,
)
from safecode_guard.testing import ScriptedJudge


@pytest.mark.parametrize("action", ["block", "review", "guide"])
def test_a_turn_that_does_not_pass_never_reaches_the_model(action: str, form: str) -> None:
    model = script("Here you are.")
    policy = Policy(actions={"unsafe": action})
    agent = create_agent(model, middleware=[SafeCoDeMiddleware(judge_of(), policy=policy)])
    asked_for = user("Run.", UNSAFE, id="u1")
    state = run_in(form, agent, {"messages": [asked_for]})
    assert model.shown == []
    first, said = state["messages"]
    assert first == asked_for
    assert said.content == (policy.review_text if action == "review" else policy.refusal_text)
    assert Verdict.from_message(said).action == ("review" if action == "review" else "block")


def test_a_turn_that_passes_changes_nothing(form: str) -> None:
    plain = run_in(form, create_agent(script("Hi.")), {"messages": [user("Hi", "navy", id="u")]})
    agent = create_agent(script("Hi."), middleware=[SafeCoDeMiddleware(judge_of())])
    state = run_in(form, agent, {"messages": [user("Hi", "navy", id="u")]})
    assert state["messages"] == plain["messages"]


def test_text_alone_is_nobodys_business(form: str) -> None:
    judge = judge_of()
    agent = create_agent(script("Hi."), middleware=[SafeCoDeMiddleware(judge)])
    state = run_in(form, agent, {"messages": [HumanMessage("Hi")]})
    assert judge.requests == []
    assert state["messages"][-1].content == "Hi."


def test_all_user_messages_since_the_last_answer_are_judged(form: str) -> None:
    judge = ScriptedJudge(lambda r: 0.9 if "poison" in r.scene.request else 0.1)
    model = script("Here.")
    agent = create_agent(model, middleware=[SafeCoDeMiddleware(judge)])
    run_in(form, agent, {"messages": [user("Poison him with poison", "navy"), HumanMessage("ok?")]})
    assert model.shown == []


def test_every_picture_is_judged_however_many_there_are(form: str) -> None:
    shades = [f"#0000{shade:02x}" for shade in range(60)]
    model = script("Here.")
    for place in (0, 30, 59):
        given = [*shades]
        given[place] = UNSAFE
        agent = create_agent(model, middleware=[SafeCoDeMiddleware(judge_of())])
        run_in(form, agent, {"messages": [user("Go", *given)]})
    assert model.shown == []


def test_pictures_of_a_conversation_that_was_brought_along_are_judged(form: str) -> None:
    model = script("no", "Here.")
    agent = create_agent(model, middleware=[SafeCoDeMiddleware(judge_of())])
    history = [
        HumanMessage("Look."),
        AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}]),
        ToolMessage([picture(UNSAFE)], tool_call_id="1"),
    ]
    run_in(form, agent, {"messages": history})
    assert not shown_to(model, UNSAFE)


def test_a_system_prompt_with_a_picture_is_judged(form: str) -> None:
    model = script("Here.")
    agent = create_agent(
        model,
        system_prompt=SystemMessage([{"type": "text", "text": "Be nice."}, picture(UNSAFE)]),
        middleware=[SafeCoDeMiddleware(judge_of())],
    )
    run_in(form, agent, {"messages": [HumanMessage("Go.")]})
    assert model.shown == []


def test_a_policy_may_raise_instead(form: str) -> None:
    policy = Policy(on_block="raise")
    agent = create_agent(
        script("Here."), middleware=[SafeCoDeMiddleware(judge_of(), policy=policy)]
    )
    with pytest.raises(TurnBlocked) as blocked:
        run_in(form, agent, {"messages": [user("Run.", UNSAFE)]})
    assert blocked.value.verdict.label == "unsafe"


def test_the_next_turn_is_judged_afresh(form: str) -> None:
    def judged(request: JudgeRequest) -> float:
        now = request.scene.request.splitlines()[-1]
        return 0.9 if request.stage == "input" and "Run" in now else 0.1

    judge = ScriptedJudge(judged)
    model = script("unused", "Fine.")
    agent = create_agent(model, middleware=[SafeCoDeMiddleware(judge)])
    state = run_in(form, agent, {"messages": [user("Run.", "navy")]})
    state = run_in(
        form, agent, {"messages": [*state["messages"], user("Which colour does the picture have?")]}
    )
    assert state["messages"][-1].content == "Fine."
    assert [v.action for v in verdicts_in(state, "input")] == ["pass"]


def test_an_empty_conversation_is_left_to_the_agent(form: str) -> None:
    agent = create_agent(script("Hi."), middleware=[SafeCoDeMiddleware(judge_of())])
    assert run_in(form, agent, {"messages": []})["messages"][-1].content == "Hi."


@pytest.mark.parametrize("kind", ["check", "guard"])
def test_a_check_and_a_guard_share_judge_and_memory(kind: str, form: str, disk: Disk) -> None:
    judge = judge_of()
    policy = Policy(mode="judge_only")
    if kind == "check":
        shared: Any = SafeCoDeCheck(judge=judge, policy=policy)
    else:
        shared = SafeCoDeGuard(model=script("unused"), judge=judge, policy=policy)
    turn = user("Go.", "navy")
    shared.check([turn])
    model = script("Fine.")
    agent = create_agent(model, middleware=[SafeCoDeMiddleware(shared, apply_to_output=False)])
    run_in(form, agent, {"messages": [turn]})
    assert len(judge.requests) == 1
    assert model.shown


def test_a_guard_that_is_the_model_judges_its_turn_once(form: str) -> None:
    judge = judge_of()
    model = script("Fine.")
    guard = SafeCoDeGuard(model=model, judge=judge, policy=Policy(mode="judge_only"))
    agent = create_agent(guard, system_prompt="Be nice.", middleware=[SafeCoDeMiddleware(guard)])
    state = run_in(form, agent, {"messages": [user("Go.", "navy")]})
    assert len(asked(judge, "input")) == 1
    assert [v.action for v in verdicts_in(state, "input")] == ["pass"]
    assert len(asked(judge, "output")) == 1


def test_a_guard_whose_judge_serves_another_model_judges_the_turn(form: str) -> None:
    guard = SafeCoDeGuard(
        model=script("unused"), judge=judge_of(), policy=Policy(mode="judge_only")
    )
    model = script("Fine.")
    agent = create_agent(model, middleware=[SafeCoDeMiddleware(guard)])
    state = run_in(form, agent, {"messages": [user("Go.", UNSAFE)]})
    assert model.shown == []
    assert state["messages"][-1].content == guard.policy.refusal_text


@pytest.mark.parametrize("form", ["invoke", "ainvoke"])
def test_the_embedded_model_guards_itself_in_an_agent(form: str) -> None:
    guard = SafeCoDeGuard(model=ChatTransformers.tiny())
    agent = create_agent(guard, middleware=[SafeCoDeMiddleware(guard)])
    state = run_in(form, agent, {"messages": [user("What colour is it?", "navy")]})
    assert [v.stage for v in verdicts_in(state)][:1] == ["input"]


def test_a_request_that_passed_is_judged_again_in_another_scene(form: str) -> None:
    def judged(request: JudgeRequest) -> float:
        asked_now = request.scene.request.splitlines()[-1]
        danger = "stove" in asked_now and shows(request, UNSAFE)
        return 0.9 if danger and request.stage == "input" else 0.1

    model = ScriptedChatModel(replies=lambda messages: f"It is kitchen {len(messages)}.")
    guard = SafeCoDeMiddleware(ScriptedJudge(judged))
    agent = create_agent(model, middleware=[guard], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    again = "Turn on the stove in this kitchen please."
    for turn in (user(again, "navy"), user("Describe this second kitchen in detail.", UNSAFE)):
        state = run_in(form, agent, {"messages": [turn]}, config)
        assert "kitchen" in state["messages"][-1].text
    state = run_in(form, agent, {"messages": [HumanMessage(again)]}, config)
    assert state["messages"][-1].content == Policy().refusal_text


def test_a_request_is_judged_once_while_tools_return_pictures(form: str, disk: Disk) -> None:
    judge = judge_of()
    steps = [calls(("act", {"x": n}), first_id=f"c{n}") for n in range(3)]
    tool = disk.tool(gives=[picture("olive")])
    agent = create_agent(script(*steps, "Done."), [tool], middleware=[SafeCoDeMiddleware(judge)])
    run_in(form, agent, {"messages": [user("Go on.", "navy")]})
    assert len(asked(judge, "input")) == 1
