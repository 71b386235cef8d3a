"""What is held for review: put aside in the state, asked about, and given back.

A tool that has run must not run again because a human has to look at what it returned. So the
question is asked in a node of its own, and what was returned waits in the state until then.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from safecode_guard.taxonomy import Stage
from safecode_guard.turns.pictures import PictureStore
from safecode_guard.verdict import Verdict
from safecode_guard_langchain import results
from safecode_guard_langchain.rails import Ruling
from safecode_guard_langchain.review import (
    Decision,
    ask_about_result,
    ask_about_verdict,
    plain_args,
)
from safecode_guard_langchain.sight import Sight
from safecode_guard_langchain.state import HELD, PASSED, VERDICTS, entries_of, sealed


@dataclass(frozen=True)
class Hold:
    """Puts placeholders where messages are held, and keeps what they stand for."""

    reason: str
    chosen: set[int]
    """Which messages, by identity."""
    originals: list[BaseMessage] = field(default_factory=list)

    def placeholder(self, message: BaseMessage) -> BaseMessage:
        """Return what stands in a message's place until somebody has decided."""
        if id(message) not in self.chosen:
            return message
        named = {"id": message.id or str(uuid4())}
        self.originals.append(message.model_copy(update=named))
        update: dict[str, Any] = {**named, "content": f"[held for review: {self.reason}]"}
        if isinstance(message, ToolMessage):
            update |= {"artifact": None, "status": "error"}
        return message.model_copy(update=update)

    def entry(self, call: Mapping[str, Any], ruling: Ruling, digest: str) -> dict[str, Any]:
        """Return what the state keeps of it."""
        return held_entry(self.originals, ruling, digest, call=call)


def held_entry(
    originals: Sequence[BaseMessage],
    ruling: Ruling,
    digest: str,
    *,
    call: Mapping[str, Any] | None = None,
    instead: str = "",
) -> dict[str, Any]:
    """Return what a state keeps of messages that are held.

    Args:
        originals: The messages.
        ruling: Why they are held.
        digest: Of the policy under which they would pass.
        call: What they are the result of.
        instead: What an answer says if it is rejected.
    """
    return {
        "call": None if call is None else {**call, "args": plain_args(call["args"])},
        "messages": packed(originals),
        "verdict": None if ruling.verdict is None else ruling.verdict.to_json(),
        "question": ruling.question,
        "reason": ruling.reason,
        "policy": digest,
        "instead": instead,
    }


def settle(state: Any, stage: Stage, *, prefix: str = "") -> dict[str, Any] | None:
    """Ask about everything that is held at a stage, and return what the state becomes by it.

    Raises:
        GraphInterrupt: Until somebody has decided.
    """
    mine = f"{prefix}{stage}:"
    held = {key: entry for key, entry in entries_of(state, HELD).items() if key.startswith(mine)}
    if not held:
        return None
    updates: dict[str, Any] = {"messages": [], VERDICTS: {}, PASSED: {}, HELD: {}}
    pictures = PictureStore(0)
    for key, entry in held.items():
        originals = unpacked(entry["messages"])
        verdict = Verdict.model_validate(entry["verdict"])
        decision = _asked_about(entry, verdict)
        if decision.kind == "approve":
            updates["messages"] += originals
            marks = Sight(pictures).in_all(originals)
            updates[PASSED] |= {prefix + mark: entry["policy"] for mark in sorted(marks)}
        else:
            updates["messages"] += [
                _rejected(message, decision, entry, pictures) for message in originals
            ]
        updates[VERDICTS][key] = sealed(decision.recorded_on(verdict), entry["question"])
        updates[HELD][key] = None
    return updates


def packed(messages: Sequence[BaseMessage]) -> list[Any]:
    """Return messages as compressed bytes: streams of the state show nothing that is held."""
    kind, data = _PLAIN.dumps_typed(list(messages))
    return [kind, zlib.compress(data)]


def unpacked(given: Sequence[Any]) -> list[BaseMessage]:
    """Return messages as they were."""
    kind, data = given
    messages: list[BaseMessage] = _PLAIN.loads_typed((kind, zlib.decompress(data)))
    return messages


_PLAIN: Final = JsonPlusSerializer()


def _asked_about(entry: Mapping[str, Any], verdict: Verdict) -> Decision:
    if entry["call"] is None:
        return ask_about_verdict(verdict, entry["reason"])
    return ask_about_result(entry["call"], verdict, entry["reason"])


def _rejected(
    message: BaseMessage, decision: Decision, entry: Mapping[str, Any], pictures: PictureStore
) -> BaseMessage:
    if isinstance(message, AIMessage):
        return AIMessage(content=entry["instead"], id=message.id)
    why = f"rejected by {decision.by} {decision.message}".strip()
    return results.withheld(message, why, pictures)
