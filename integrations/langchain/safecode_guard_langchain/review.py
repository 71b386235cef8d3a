"""Asks a human about what is held, in the shape of LangChain's own approvals, and records it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from langgraph.config import get_config
from langgraph.types import interrupt

from safecode_guard.judges.protocol import canonical_json
from safecode_guard.verdict import Review, Verdict
from safecode_guard_langchain.asked import ASKED

Kind = Literal["approve", "edit", "reject"]

_TRIES: Final = 3
"""How often an answer that cannot be read is asked for again before it counts as a no."""
_SENT: Final = "__pregel_push"
_CHECKPOINTER: Final = "__pregel_checkpointer"


@dataclass(frozen=True)
class Decision:
    """What a human decided."""

    kind: Kind
    by: str = "human"
    args: Mapping[str, Any] | None = None
    """The arguments to run with, of an edit."""
    message: str = ""
    """Why not, of a rejection."""

    def recorded_on(self, verdict: Verdict) -> Verdict:
        """Return the verdict with this decision, and when it was made."""
        review = Review(decision=self.kind, by=self.by, at=datetime.now(UTC))
        return verdict.model_copy(update={"review": review})


def can_ask() -> bool:
    """Return whether a run may be interrupted here, and resumed: whether it is checkpointed."""
    try:
        configurable = get_config().get("configurable", {})
    except RuntimeError:  # outside of a graph
        return False
    return configurable.get(_CHECKPOINTER) is not None


def has_a_step_of_its_own() -> bool:
    """Return whether what runs here was sent for by itself, as agents send for each call.

    Where several calls run in one step, LangGraph tells answers apart by the order in which the
    questions happen to be asked: a yes to one call could be taken for a yes to another.
    """
    triggers = get_config().get("metadata", {}).get("langgraph_triggers") or ()
    return any(str(trigger) == _SENT for trigger in triggers)


def ask_about_call(call: Mapping[str, Any], asked: Mapping[str, Any], reason: str) -> Decision:
    """Interrupt the run, and return what a human decides about a call.

    Args:
        call: The call.
        asked: The verdict, sealed: it is resumed with.
        reason: Why it is held.

    Raises:
        GraphInterrupt: Until somebody has decided.
    """
    question = {
        "type": "tool_approval",
        **_named(call),
        "description": f"Held before it runs: {reason}",
        ASKED: dict(asked),
    }
    return _ask(question, ("approve", "edit", "reject"), name=str(call["name"]))


def ask_about_result(call: Mapping[str, Any], verdict: Verdict, reason: str) -> Decision:
    """Interrupt the run, and return what a human decides about what a tool returned.

    Raises:
        GraphInterrupt: Until somebody has decided.
    """
    question = {
        "type": "tool_result_approval",
        **_named(call),
        "description": f"The tool has run; what it returned is held: {reason}",
        "safecode": verdict.to_json(),
    }
    return _ask(question, ("approve", "reject"))


def ask_about_verdict(verdict: Verdict, reason: str) -> Decision:
    """Interrupt the run, and return what a human decides about a turn or an answer.

    Raises:
        GraphInterrupt: Until somebody has decided.
    """
    question = {
        "type": "verdict_approval",
        "description": f"Held at stage {verdict.stage!r}: {reason}",
        "safecode": verdict.to_json(),
    }
    return _ask(question, ("approve", "reject"))


def _named(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call as a question names it."""
    args = plain_args(call.get("args") or {})
    return {"tool_call_id": call.get("id"), "name": call.get("name"), "args": args}


def plain_args(args: Any) -> Any:
    """Return arguments as they are, or in words where they are no plain data."""
    try:
        json.dumps(args)
    except (TypeError, ValueError, RecursionError):
        return json.loads(canonical_json(args))
    return args


def _ask(question: dict[str, Any], allowed: Sequence[Kind], *, name: str = "") -> Decision:
    schema = _schema(allowed, name)
    description = question["description"]
    if not can_ask():
        return Decision("reject", "nobody", message="(the graph has no checkpointer to wait with)")
    for _ in range(_TRIES):
        answer = interrupt(question, response_schema=schema)
        decision = _read(answer, allowed, name)
        if decision is not None:
            return decision
        again = "The last answer could not be read; nothing has run."
        question = {**question, "description": f"{description} {again}"}
    return Decision("reject", message="the reviewer's answer could not be read")


def _read(answer: Any, allowed: Sequence[Kind], name: str) -> Decision | None:
    """Return a decision, or None for what is none."""
    if not isinstance(answer, Mapping) or answer.get("type") not in allowed:
        return None
    kind: Kind = answer["type"]
    by, message = answer.get("by", "human"), answer.get("message", "")
    if not isinstance(by, str) or not by or not isinstance(message, str):
        return None
    if kind != "edit":
        return Decision(kind, by, message=message)
    edited = answer.get("edited_action")
    if not isinstance(edited, Mapping) or edited.get("name", name) != name:
        return None
    args = edited.get("args")
    return Decision(kind, by, args) if isinstance(args, Mapping) else None


def _schema(allowed: Sequence[Kind], name: str) -> dict[str, Any]:
    """Return the JSON Schema of an answer, for whoever renders a form."""
    action = {
        "type": "object",
        "properties": {"name": {"const": name}, "args": {"type": "object"}},
        "required": ["name", "args"],
    }
    more: dict[Kind, dict[str, Any]] = {
        "approve": {},
        "edit": {"edited_action": action},
        "reject": {"message": {"type": "string"}},
    }
    return {"oneOf": [_branch(kind, more[kind]) for kind in allowed]}


def _branch(kind: Kind, more: Mapping[str, Any]) -> dict[str, Any]:
    required = ["type", *(key for key in more if key == "edited_action")]
    properties = {"type": {"const": kind}, "by": {"type": "string"}, **more}
    return {"type": "object", "properties": properties, "required": required}
