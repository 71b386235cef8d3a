"""Answers: judged before they enter the state or any stream of the graph."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelFallbackMiddleware, hook_config
from langchain.agents.middleware.types import ModelResponse
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel
from safecode_guard_langchain import SafeCoDeMiddleware, verdicts_in
from safecode_guard_langchain.testing import ScriptedChatModel, calls, results
from support import UNSAFE, Disk, asked, judge_of, picture, png, run_in, script, shows, texts, user

from safecode_guard import Policy, TurnBlocked, Verdict
from safecode_guard.testing import ScriptedJudge

SECRET = "mix bleach with ammonia"
GRAPH_STREAMS = ["values", "updates", "messages", "debug", "custom", "tasks"]


def no_secrets() -> Any:
    return judge_of(answers=lambda text: 0.9 if SECRET in text else 0.1)


def guarded(model: Any, *tools: Any, **fields: Any) -> Any:
    middleware = SafeCoDeMiddleware(no_secrets(), **fields)
    return create_agent(model, list(tools), middleware=[middleware])


def test_an_answer_that_does_not_pass_is_replaced_under_its_own_id(form: str) -> None:
    state = run_in(form, guarded(script(SECRET)), {"messages": [user("How?", "navy")]})
    assert SECRET not in str(state)
    said = state["messages"][-1]
    assert said.id == "ai-0"
    assert said.content == Policy().refusal_text
    assert Verdict.from_message(said, stage="output").action == "block"
    assert [v.action for v in verdicts_in(state, "output")] == ["block"]


@pytest.mark.parametrize("mode", GRAPH_STREAMS)
def test_no_stream_of_the_graph_carries_it(mode: str) -> None:
    agent = guarded(script(SECRET))
    given = {"messages": [user("How?", "navy")]}
    assert not leaks(list(agent.stream(given, stream_mode=mode, subgraphs=True)))

    async def all_of() -> list[Any]:
        return [e async for e in agent.astream(given, stream_mode=mode, subgraphs=True)]

    assert not leaks(asyncio.run(all_of()))


@pytest.mark.parametrize("mode", ["values", "updates", "messages", "debug"])
def test_an_answer_that_passes_comes_whole(mode: str) -> None:
    agent = guarded(script("Open a window first."))
    events = list(agent.stream({"messages": [user("How?", "navy")]}, stream_mode=mode))
    assert "Open a window first." in str(events)


def test_events_of_version_3_carry_nothing_either() -> None:
    agent = guarded(script(SECRET))
    given = {"messages": [user("How?", "navy")]}

    async def all_of() -> list[Any]:
        run = agent.astream_events(given, version="v3")
        run = await run if asyncio.iscoroutine(run) else run
        return [event async for event in run]

    assert not leaks(asyncio.run(all_of()))


def test_events_of_version_2_are_of_the_model_itself_and_stay_open() -> None:
    """What the docs say of it: callbacks of a model that is no guard are told what it says."""
    agent = guarded(script(SECRET))

    async def all_of() -> list[Any]:
        given = {"messages": [user("How?", "navy")]}
        return [event async for event in agent.astream_events(given, version="v2")]

    events = asyncio.run(all_of())
    told = {event["event"] for event in events if leaks([event])}
    assert told <= {"on_chat_model_stream", "on_chat_model_end"}


def leaks(events: list[Any]) -> bool:
    said = "".join(pieces_of(events))
    return SECRET in str(events) or SECRET in said


def pieces_of(events: Any) -> list[str]:
    """Return the texts of all messages in events: a stream gives an answer word by word."""
    if isinstance(events, AIMessage):
        return [str(events.text)]
    if isinstance(events, dict):
        return [piece for value in events.values() for piece in pieces_of(value)]
    if isinstance(events, list | tuple):
        return [piece for value in events for piece in pieces_of(value)]
    return []


def test_without_a_picture_an_answer_is_not_judged_unless_the_policy_says_so(form: str) -> None:
    given = {"messages": [HumanMessage("How?")]}
    assert run_in(form, guarded(script(SECRET)), given)["messages"][-1].content == SECRET
    policy = Policy(stages={"output": {"when": "always"}})
    state = run_in(form, guarded(script(SECRET), policy=policy), given)
    assert SECRET not in str(state)


def test_an_answer_held_for_review_says_so(form: str) -> None:
    policy = Policy(actions={"unsafe": "review"})
    state = run_in(form, guarded(script(SECRET), policy=policy), {"messages": [user("?", "navy")]})
    assert state["messages"][-1].content == policy.review_text


def test_an_answer_may_raise_instead(form: str) -> None:
    agent = guarded(script(SECRET), policy=Policy(on_block="raise"))
    with pytest.raises(TurnBlocked) as blocked:
        run_in(form, agent, {"messages": [user("How?", "navy")]})
    assert blocked.value.verdict.stage == "output"


def test_words_beside_calls_are_judged_and_take_the_calls_with_them(form: str, disk: Disk) -> None:
    agent = guarded(script(calls(("act", {"x": 1}), say=SECRET), "Done."), disk.tool())
    state = run_in(form, agent, {"messages": [user("How?", "navy")]})
    assert SECRET not in str(state)
    assert disk.ran == []
    assert state["messages"][-1].tool_calls == []


def test_a_picture_in_an_answer_is_judged(form: str) -> None:
    judge = judge_of()
    judge._script = lambda r: 0.9 if r.stage == "output" and r.scene.images else 0.1
    drawn = AIMessage([{"type": "text", "text": "Here."}, picture(UNSAFE)], id="drawn")
    agent = create_agent(script(drawn), middleware=[SafeCoDeMiddleware(judge)])
    state = run_in(form, agent, {"messages": [HumanMessage("Draw it.")]})
    assert state["messages"][-1].content == Policy().refusal_text
    assert asked(judge, "output")


class Recipe(BaseModel):
    steps: str


@pytest.mark.parametrize("tools", [0, 1])
def test_structured_answers_are_judged(tools: int, form: str, disk: Disk) -> None:
    judge = no_secrets()
    agent = create_agent(
        script(calls(("Recipe", {"steps": SECRET}))),
        [disk.tool()] * tools,
        response_format=ToolStrategy(Recipe),
        middleware=[SafeCoDeMiddleware(judge)],
    )
    state = run_in(form, agent, {"messages": [user("How?", "navy")]})
    assert state.get("structured_response") is None
    assert SECRET not in str(state)
    assert state["messages"][-1].content == Policy().refusal_text


def test_structured_answers_that_pass_are_not_touched(form: str, disk: Disk) -> None:
    judge = no_secrets()
    agent = create_agent(
        script(calls(("act", {"x": 1})), calls(("Recipe", {"steps": "air"}), first_id="r")),
        [disk.tool()],
        response_format=ToolStrategy(Recipe),
        middleware=[SafeCoDeMiddleware(judge)],
    )
    state = run_in(form, agent, {"messages": [user("How?", "navy")]})
    assert state["structured_response"] == Recipe(steps="air")
    assert disk.ran == ["act-1"]
    assert [r.tool_call.name for r in asked(judge, "tool_call")] == ["act"]


class Says(AgentMiddleware):
    """A middleware that answers in the model's stead, past every wrap."""

    @hook_config(can_jump_to=["end"])
    def before_model(self, state: Any, runtime: Any) -> dict[str, Any]:
        return {"jump_to": "end", "messages": [AIMessage(SECRET, id="said")]}


class Overwrites(AgentMiddleware):
    """A middleware that changes the answer after the model."""

    def after_model(self, state: Any, runtime: Any) -> dict[str, Any]:
        return {"messages": [AIMessage(SECRET, id=state["messages"][-1].id)]}


@pytest.mark.parametrize("other", [Says, Overwrites])
@pytest.mark.parametrize("first", [True, False])
def test_an_answer_that_came_past_the_model_is_judged(
    other: type[AgentMiddleware], first: bool, form: str
) -> None:
    guard = SafeCoDeMiddleware(no_secrets())
    order = [other(), guard] if first else [guard, other()]
    agent = create_agent(script("Hi."), middleware=order)
    state = run_in(form, agent, {"messages": [user("How?", "navy")]})
    assert SECRET not in str(state)


@pytest.mark.parametrize("first", [True, False])
def test_the_answer_of_a_fallback_model_is_judged_and_not_streamed(first: bool, form: str) -> None:
    broken, spare = script(RuntimeError("down")), script(SECRET)
    guard = SafeCoDeMiddleware(no_secrets())
    fallback = ModelFallbackMiddleware(spare)
    order = [fallback, guard] if first else [guard, fallback]
    agent = create_agent(broken, middleware=order)
    given = {"messages": [user("How?", "navy")]}
    assert SECRET not in str(run_in(form, agent, given))
    assert not leaks(list(agent.stream(given, stream_mode="messages")))


def test_answers_may_go_unjudged_by_request_and_stream_as_they_come(form: str) -> None:
    agent = guarded(script("one two three"), apply_to_output=False)
    given = {"messages": [user("How?", "navy")]}
    assert run_in(form, agent, given)["messages"][-1].content == "one two three"
    chunks = [m for m, _ in agent.stream(given, stream_mode="messages") if m.type.startswith("AI")]
    assert len([chunk for chunk in chunks if chunk.content]) == 3


def test_tool_strategy_leaves_calls_of_other_tools_alone(form: str, disk: Disk) -> None:
    judge = judge_of(calls=lambda name, args: 0.9)
    agent = create_agent(
        script(calls(("act", {"x": 1})), calls(("Recipe", {"steps": "air"}), first_id="r")),
        [disk.tool()],
        response_format=ToolStrategy(Recipe),
        middleware=[SafeCoDeMiddleware(judge)],
    )
    state = run_in(form, agent, {"messages": [user("How?", "navy")]})
    assert disk.ran == []
    assert results(state["messages"])["call-1"].status == "error"
    assert state["structured_response"] == Recipe(steps="air")


def test_an_unguarded_and_a_guarded_run_that_pass_say_the_same_words(form: str) -> None:
    model = ScriptedChatModel(replies=[AIMessage("Fine.", id="a")])
    given = {"messages": [user("How?", "navy", id="u")]}
    plain = run_in(form, create_agent(model), given)
    state = run_in(form, guarded(model), given)
    assert texts(plain["messages"]) == texts(state["messages"])
    assert [m.id for m in plain["messages"]] == [m.id for m in state["messages"]]


def red_answers() -> Any:
    """Return a judge that finds any answer dangerous where crimson is in sight."""
    return ScriptedJudge(lambda r: 0.9 if r.stage == "output" and shows(r, UNSAFE) else 0.1)


def test_the_same_words_about_another_picture_are_judged_again(form: str) -> None:
    model = ScriptedChatModel(replies=lambda messages: "Yes, touch it.")
    judge = red_answers()
    guard = SafeCoDeMiddleware(judge)
    agent = create_agent(model, middleware=[guard], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    state = run_in(form, agent, {"messages": [user("May I touch it?", "navy")]}, config)
    assert state["messages"][-1].content == "Yes, touch it."
    assert len(asked(judge, "output")) == 1  # once in one step
    state = run_in(form, agent, {"messages": [user("And this one?", UNSAFE)]}, config)
    assert state["messages"][-1].content == Policy().refusal_text


class Twice(AgentMiddleware):
    """A middleware that gives an answer of its own before the model's."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return ModelResponse(result=[AIMessage(SECRET), *handler(request).result])

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return ModelResponse(result=[AIMessage(SECRET), *(await handler(request)).result])


class Illustrates(AgentMiddleware):
    """A middleware that puts a picture beside the answer."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return ModelResponse(result=[user("See.", UNSAFE), *handler(request).result])

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return ModelResponse(result=[user("See.", UNSAFE), *(await handler(request)).result])


@pytest.mark.parametrize("other", [Twice, Illustrates])
def test_all_that_comes_back_with_an_answer_is_judged(
    other: type[AgentMiddleware], form: str
) -> None:
    guard = SafeCoDeMiddleware(no_secrets())
    agent = create_agent(script("Hi."), middleware=[guard, other()])
    state = run_in(form, agent, {"messages": [user("How?", "navy")]})
    assert SECRET not in str(state)
    assert png(UNSAFE) not in str(state)
    assert [m.content for m in state["messages"][1:]] == [Policy().refusal_text]
