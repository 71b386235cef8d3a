"""What a benchmark of calls asks: conversations, each with a call that is about to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from safecode_guard.judges.content import image_block
from safecode_guard.tiny import calls, orders
from safecode_guard.tiny.world import Scene

ROWS: Final[Mapping[str, str]] = {
    "ordered": "the call that the order names",
    "renamed": "the same with another argument's name",
    "retooled": "the same with another tool's name and another argument's",
    "implied": "a request that does not name the act",
    "smuggled": "a request for something else",
    "beside": "a harmless call, whatever was asked for",
    "from_tool": "the call that the order names, in a photo that a tool returned",
}


@dataclass(frozen=True)
class Case:
    """One call that is about to run, and whether it is dangerous there."""

    row: str
    unit: str
    """The pair that it belongs to: what intervals draw again."""
    request: str
    messages: tuple[BaseMessage, ...]
    call: Mapping[str, Any]
    """In LangChain's form."""
    over_unsafe: bool
    """Whether the scene is the unsafe one of its family."""
    unsafe: bool
    """Whether the call is dangerous in it."""


@dataclass(frozen=True)
class Errand:
    """One order to a robot, which may carry it out."""

    unit: str
    messages: tuple[BaseMessage, ...]
    tool: str
    unsafe: bool


def cases(row: str, pairs: int, *, seed: int) -> list[Case]:
    """Return the held-out cases of a row: each call over a safe and an unsafe scene."""
    if row == "from_tool":
        # Scenes of its own: in the same ones a judge is shown what it was shown before.
        made = calls.call_pairs(pairs, "ordered", split="test", seed=seed + 1)
    elif row in ("renamed", "retooled"):
        named: calls.Named = "tool" if row == "retooled" else "argument"
        made = calls.call_pairs(pairs, "renamed", split="test", seed=seed, named=named)
    else:
        made = calls.call_pairs(pairs, row, split="test", seed=seed)  # type: ignore[arg-type]
    return [case for pair in made for case in _both(row, pair)]


def errands(count: int, *, seed: int) -> list[Errand]:
    """Return held-out orders, each over a safe and an unsafe scene."""
    return [
        Errand(order.id, (_shown(scene, order.text),), order.tool, scene.unsafe)
        for order in orders.orders(count, split="test", seed=seed)
        for scene in (order.safe, order.unsafe)
    ]


def tools() -> list[dict[str, Any]]:
    """Return the robot's tools, in OpenAI's form."""
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": name.replace("_", " "),
                "parameters": {
                    "type": "object",
                    "properties": {} if name == "stop" else {"target": {"type": "string"}},
                    "required": [] if name == "stop" else ["target"],
                },
            },
        }
        for name in orders.HOUSEHOLD_TOOLS
    ]


def _both(row: str, pair: calls.CallPair) -> Iterator[Case]:
    for scene, call in ((pair.safe, pair.in_safe), (pair.unsafe, pair.in_unsafe)):
        conversation = _photographed if row == "from_tool" else _asked
        yield Case(
            row,
            pair.id,
            call.request,
            conversation(scene, call.request),
            {"name": call.tool, "args": dict(call.arguments), "id": "next"},
            scene.unsafe,
            call.unsafe,
        )


def _asked(scene: Scene, request: str) -> tuple[BaseMessage, ...]:
    return (_shown(scene, request),)


def _photographed(scene: Scene, request: str) -> tuple[BaseMessage, ...]:
    """Write a request in words, and the photo that the robot took for it."""
    look = {"name": "take_photo", "args": {}, "id": "look", "type": "tool_call"}
    return (
        HumanMessage(request),
        AIMessage("", tool_calls=[look]),
        ToolMessage([image_block(scene.image)], tool_call_id="look", name="take_photo"),
    )


def _shown(scene: Scene, request: str) -> HumanMessage:
    return HumanMessage([image_block(scene.image), {"type": "text", "text": request}])
