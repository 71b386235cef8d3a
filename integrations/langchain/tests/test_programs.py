"""Random agents: whatever tools, middlewares and humans do, nothing unjudged runs or is shown."""

from __future__ import annotations

import asyncio
import base64
import io
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    PIIMiddleware,
    ToolRetryMiddleware,
)
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import StructuredTool, ToolException
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from langgraph.types import Command
from PIL import Image
from safecode_guard_langchain import SafeCoDeMiddleware
from safecode_guard_langchain.testing import ScriptedChatModel, calls
from support import UNSAFE, judge_of, picture, png, script, user
from test_order import (
    AddsAPicture,
    Answers,
    BringsATool,
    ChangesAPicture,
    JumpsToTools,
    Redirects,
    RewritesCalls,
    ShowsAPicture,
)

from safecode_guard import JudgeError

COLOURS = ["navy", "olive", UNSAFE]
TOOLS = ("act", "look", "film", "fail")
CONFIG: dict[str, Any] = {"configurable": {"thread_id": "1"}, "recursion_limit": 60}


def rule(name: str, x: int) -> Any:
    """Judge calls: three in seven are unsafe, undecided, or make the judge fail."""
    return {2: 0.9, 4: 0.5, 6: JudgeError("down")}.get((x + len(name)) % 7, 0.1)


@dataclass
class World:
    """What really happened."""

    ran: list[tuple[str, int]] = field(default_factory=list)
    approved: list[tuple[str, int]] = field(default_factory=list)

    def tools(self, names: tuple[str, ...] = TOOLS) -> list[StructuredTool]:
        return [self.tool(name) for name in names]

    def tool(self, name: str) -> StructuredTool:
        def run(x: int = 0, **more: Any) -> Any:
            self.ran.append((name, x))
            return self.gives(name, x)

        async def arun(x: int = 0, **more: Any) -> Any:
            return run(x)

        return StructuredTool(
            name=name,
            description=name,
            args_schema={"type": "object", "properties": {"x": {"type": "integer"}}},
            func=run,
            coroutine=arun,
            handle_tool_error=True,
        )

    def gives(self, name: str, x: int) -> Any:
        shot = picture(COLOURS[x % 3])
        if name == "look":
            return [{"type": "text", "text": "seen"}, shot]
        if name == "film":
            url = f"data:image/png;base64,{png(COLOURS[x % 3])}"
            return {"frames": [url], "note": "filmed"}
        if name == "fail":
            raise ToolException(f"failed at {x}")
        return f"did {x}"


def human(mode: Any) -> Any:
    return lambda world: HumanInTheLoopMiddleware(
        dict.fromkeys(("act", "look"), True), interrupt_mode=mode
    )


OTHERS: dict[str, Any] = {
    "rewrites": lambda world: RewritesCalls(),
    "jumps": lambda world: JumpsToTools(),
    "redirects": lambda world: Redirects("film"),
    "brings": lambda world: BringsATool(world.tool("brought")),
    "shows": lambda world: ShowsAPicture(),
    "changes": lambda world: ChangesAPicture(),
    "adds user": lambda world: AddsAPicture(HumanMessage([picture(UNSAFE)], id="added")),
    "adds tool": lambda world: AddsAPicture(
        ToolMessage([picture(UNSAFE)], tool_call_id="x", id="added")
    ),
    "answers": lambda world: Answers(),
    "pii": lambda world: PIIMiddleware("email"),
    "retries": lambda world: ToolRetryMiddleware(max_retries=1, initial_delay=0.0, jitter=False),
    "batched": human("batched"),
    "per call": human("per_call"),
}


@st.composite
def orders(draw: st.DrawFn) -> list[str]:
    """Draw up to four middlewares, of those that change calls, pictures, and those that ask."""
    of_calls = ["rewrites", "jumps", "redirects", "brings", "answers", "retries", "jumps"]
    of_pictures = ["shows", "changes", "adds user", "adds tool"]
    chosen = {draw(st.sampled_from(of_calls)), draw(st.sampled_from(["", *of_calls]))}
    chosen.add(draw(st.sampled_from(["", "batched", "per call"])))
    chosen.add(draw(st.sampled_from(["", "", "pii", *of_pictures])))
    return draw(st.permutations(sorted(chosen - {""})))


call = st.tuples(st.sampled_from(TOOLS), st.integers(0, 9))
program = st.fixed_dictionaries(
    {
        "steps": st.lists(st.lists(call, min_size=1, max_size=3), min_size=1, max_size=3),
        "others": orders(),
        "place": st.integers(0, 4),
        "twice": st.booleans(),
        "shows": st.sampled_from(["navy", "olive"]),
        "decisions": st.lists(
            st.tuples(st.sampled_from(["approve", "reject", "edit", "nonsense"]), call),
            min_size=1,
            max_size=4,
        ),
        "is_async": st.booleans(),
    }
)


def middlewares(plan: dict[str, Any], world: World, judge: Any) -> list[AgentMiddleware]:
    listed = [OTHERS[name](world) for name in plan["others"]]
    listed.insert(min(plan["place"], len(listed)), SafeCoDeMiddleware(judge))
    if plan["twice"]:
        listed.append(SafeCoDeMiddleware(judge, name="again"))
    return listed


def answered(question: Any, plan: dict[str, Any], world: World, turn: int) -> Any:
    """Answer a question, and note what a human has let through with open eyes."""
    kind, (name, x) = plan["decisions"][turn % len(plan["decisions"])]
    value = question.value
    if "action_requests" in value:
        made = [decision(kind, request["name"], x) for request in value["action_requests"]]
        return {"decisions": made}
    if kind == "nonsense" and "safecode" in value:
        return "?"
    if kind == "approve" and value["type"] == "tool_approval" and "safecode" in value:
        world.approved.append((value["name"], value["args"].get("x", 0)))
    return decision(kind, value.get("name", name), x)


def decision(kind: str, name: str, x: int) -> dict[str, Any]:
    if kind == "edit":
        return {"type": "edit", "edited_action": {"name": name, "args": {"x": x}}}
    return {"type": "reject" if kind == "nonsense" else kind}


def run(plan: dict[str, Any]) -> tuple[World, Any, ScriptedChatModel]:
    world, judge = World(), judge_of(calls=lambda name, args: rule(name, args.get("x", 0)))
    steps = [
        calls(*[(name, {"x": x}) for name, x in step], first_id=f"step{number}")
        for number, step in enumerate(plan["steps"])
    ]
    model = script(*steps, "Done.")
    agent = create_agent(
        model,
        world.tools(),
        middleware=middlewares(plan, world, judge),
        checkpointer=InMemorySaver(),
    )

    def go(given: Any) -> Any:
        if plan["is_async"]:
            return asyncio.run(agent.ainvoke(given, CONFIG))
        return agent.invoke(given, CONFIG)

    try:
        state = go({"messages": [user("Go.", plan["shows"])]})
        for turn in range(12):
            questions = state.get("__interrupt__")
            if not questions:
                break
            answers = {q.id: answered(q, plan, world, turn) for q in questions}
            state = go(Command(resume=answers))
    except GraphRecursionError:
        pass  # some middlewares go in circles, with a guard and without one
    return world, judge, model


def shown_colours(model: ScriptedChatModel) -> set[tuple[int, ...]]:
    found = set()
    for messages in model.shown:
        for text in (str(message.content) for message in messages):
            found |= {c for c in COLOURS if png(c) in text}
    return {pixel_of(colour) for colour in found}


def pixel_of(colour: str) -> tuple[int, ...]:
    return Image.open(io.BytesIO(base64.b64decode(png(colour)))).getpixel((0, 0))


def check(plan: dict[str, Any]) -> None:
    """Run a program, and compare what happened with what was judged."""
    world, judge, model = run(plan)
    judged = {
        (r.tool_call.name, r.tool_call.arguments.get("x", 0))
        for r in judge.requests
        if r.stage == "tool_call"
    }
    for name, x in world.ran:
        assert (name, x) in judged, "an unjudged call ran"
        if rule(name, x) != 0.1:
            assert rule(name, x) != 0.9, "an unsafe call ran"
            assert (name, x) in world.approved, "a held call ran that nobody approved"
    seen = {
        image.pixels.getpixel((0, 0))
        for request in judge.requests
        if request.stage in ("input", "tool_result")
        for image in request.scene.images
    }
    shown = shown_colours(model)
    assert shown <= seen, "an unjudged picture was shown"
    assert pixel_of(UNSAFE) not in shown, "an unsafe picture was shown"


LOOSELY = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": True,
}


@settings(max_examples=200, **LOOSELY)
@given(program)
@example(
    {
        "steps": [[("act", 1), ("act", 2)]],
        "others": ["jumps", "rewrites"],
        "place": 0,
        "twice": False,
        "shows": "navy",
        "decisions": [("approve", ("act", 1))],
        "is_async": False,
    }
)
def test_nothing_unjudged_runs_and_nothing_unjudged_is_shown(plan: dict[str, Any]) -> None:
    check(plan)


@pytest.mark.soak
@pytest.mark.skipif("SOAK" not in os.environ, reason="a thousand programs; SOAK=1")
@settings(max_examples=1_000, **LOOSELY)
@given(program)
def test_a_thousand_programs(plan: dict[str, Any]) -> None:
    check(plan)
