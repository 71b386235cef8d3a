"""A run through every stage with real pictures: nothing but what the policy blocks changes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.types import Command
from safecode_guard_langchain import SafeCoDeMiddleware, verdicts_in
from safecode_guard_langchain.testing import ScriptedChatModel, calls
from support import judge_of, run_in

from safecode_guard import Verdict, VerdictHandler
from safecode_guard.tiny.world import draw


def photo(seed: int, *, size: tuple[int, int] = (1920, 1080), form: str = "PNG") -> str:
    buffer = io.BytesIO()
    draw(seed, "stove", unsafe=False).image.resize(size).save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode()


PHOTOS = [photo(seed, form=form) for seed, form in enumerate(["PNG", "JPEG", "WEBP"])]


@tool
def look(id: Annotated[str, InjectedToolCallId]) -> ToolMessage:
    """Look around."""
    block = {"type": "image", "base64": PHOTOS[1], "mime_type": "image/jpeg"}
    content = [{"type": "text", "text": "the kitchen"}, block]
    return ToolMessage(content, tool_call_id=id, id=f"result-{id}")


@tool
def film(id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
    """Film."""
    url = f"data:image/webp;base64,{PHOTOS[2]}"
    shown = HumanMessage([{"type": "image_url", "image_url": {"url": url}}], id=f"frame-{id}")
    told = ToolMessage("filmed", tool_call_id=id, id=f"result-{id}", artifact={"frames": 1})
    return Command(update={"messages": [told, shown]})


@tool
def act(what: str, id: Annotated[str, InjectedToolCallId]) -> ToolMessage:
    """Do something."""
    return ToolMessage(f"did {what}", tool_call_id=id, id=f"result-{id}")


REPLIES = [
    calls(("look", {}), ("act", {"what": "wave"}), say="I have a look.", first_id="a"),
    calls(("film", {}), ("act", {"what": "burn it down"}), first_id="b"),
    calls(("act", {"what": "tidy up"}), first_id="c"),
    AIMessage("All tidy."),
]


def model() -> ScriptedChatModel:
    named = [r.model_copy(update={"id": f"answer-{n}"}) for n, r in enumerate(REPLIES)]
    return ScriptedChatModel(replies=named)


def start() -> dict[str, Any]:
    block = {"type": "image", "base64": PHOTOS[0], "mime_type": "image/png"}
    text = {"type": "text", "text": "Tidy the kitchen up, please."}
    return {"messages": [HumanMessage([block, text], id="user")]}


def hashes(messages: list[BaseMessage]) -> dict[str, str]:
    """Return the hash of each message, whole, by its id."""
    return {m.id: hashlib.sha256(json.dumps(dumped(m)).encode()).hexdigest() for m in messages}


def dumped(message: BaseMessage) -> Any:
    return message.model_dump(mode="json")


def run(form: str, *middleware: Any, config: Any = None) -> dict[str, Any]:
    agent = create_agent(model(), [look, film, act], middleware=middleware)
    return run_in(form, agent, start(), config)


def test_nothing_changes_where_everything_passes(form: str) -> None:
    plain, state = run(form), run(form, SafeCoDeMiddleware(judge_of()))
    assert hashes(state["messages"]) == hashes(plain["messages"])
    assert [m.id for m in state["messages"]] == [m.id for m in plain["messages"]]


def test_only_what_is_blocked_changes(form: str) -> None:
    judge = judge_of(calls=lambda name, args: 0.9 if "burn" in str(args) else 0.1)
    plain, state = run(form), run(form, SafeCoDeMiddleware(judge))
    before, after = hashes(plain["messages"]), hashes(state["messages"])
    changed = {id for id in before if before[id] != after.get(id)}
    assert changed == {"result-b-2"}
    told = next(m for m in state["messages"] if m.type == "tool" and m.tool_call_id == "b-2")
    assert told.content.startswith("Not run: ")


def test_every_stage_has_its_verdict_in_the_state_and_in_the_events(form: str) -> None:
    heard: list[Verdict] = []
    config = {"callbacks": [VerdictHandler(heard.append)]}
    state = run(form, SafeCoDeMiddleware(judge_of()), config=config)
    kept = verdicts_in(state)
    assert {v.stage for v in kept} == {"input", "tool_call", "tool_result", "output"}
    assert len([v for v in kept if v.stage == "tool_call"]) == 5
    assert len([v for v in kept if v.stage == "tool_result"]) == 5
    assert {v.id for v in kept} <= {v.id for v in heard}
    assert len({v.id for v in kept}) == len(kept)


def test_verdicts_are_in_the_custom_stream() -> None:
    agent = create_agent(model(), [look, film, act], middleware=[SafeCoDeMiddleware(judge_of())])
    events = list(agent.stream(start(), stream_mode="custom"))
    found = [verdict for event in events if (verdict := Verdict.from_event(event))]
    assert {v.stage for v in found} == {"input", "tool_call", "tool_result", "output"}


@pytest.mark.parametrize("mode", ["values", "updates", "messages"])
def test_streams_of_a_guarded_run_carry_what_those_of_a_plain_one_do(mode: str) -> None:
    def said(*middleware: Any) -> dict[str, str]:
        agent = create_agent(model(), [look, film, act], middleware=middleware)
        found: dict[str, str] = {}
        for event in agent.stream(start(), stream_mode=mode):
            for message in messages_in(event):
                before = found.get(message.id, "") if mode == "messages" else ""
                found[message.id] = before + message.text
        return found

    assert said(SafeCoDeMiddleware(judge_of())) == said()


def messages_in(events: Any) -> list[BaseMessage]:
    if isinstance(events, BaseMessage):
        return [events]
    if isinstance(events, dict):
        return [m for value in events.values() for m in messages_in(value)]
    if isinstance(events, list | tuple):
        return [m for value in events for m in messages_in(value)]
    return []


def test_many_conversations_at_once_do_not_mix() -> None:
    """One middleware serves threads, tasks and batches."""
    judge = judge_of(calls=lambda name, args: 0.9 if args.get("x", 0) % 2 else 0.1)
    guard = SafeCoDeMiddleware(judge)

    @tool
    def count(x: int) -> str:
        """Count."""
        return f"counted {x}"

    def reply(messages: list[BaseMessage]) -> AIMessage:
        if messages[-1].type == "tool":
            return AIMessage(messages[-1].text)
        return calls(("count", {"x": int(messages[0].text)}))

    agent = create_agent(ScriptedChatModel(replies=reply), [count], middleware=[guard])
    inputs = [{"messages": [HumanMessage(str(x))]} for x in range(40)]
    batched = agent.batch(inputs, {"max_concurrency": 8})

    async def gathered() -> list[Any]:
        return await asyncio.gather(*(agent.ainvoke(given) for given in inputs))

    for states in (batched, asyncio.run(gathered())):
        for x, state in enumerate(states):
            said = state["messages"][-1].text
            assert said.startswith("Not run") if x % 2 else said == f"counted {x}"
