"""Answers: what of them is judged, how they are known again, and what stands in their place."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from safecode_guard.judges.protocol import canonical_json
from safecode_guard.policy import Policy
from safecode_guard.taxonomy import Stage
from safecode_guard.verdict import Verdict, to_metadata
from safecode_guard_langchain.rails import Ruling
from safecode_guard_langchain.sight import Sight


def last_answer(messages: Sequence[BaseMessage]) -> AIMessage | None:
    """Return the newest answer; after structured output, tool messages stand behind it."""
    return next((m for m in reversed(messages) if isinstance(m, AIMessage)), None)


def place_of_answer(messages: Sequence[BaseMessage]) -> int:
    """Return where the newest answer stands in a conversation; -1: nowhere."""
    places = range(len(messages) - 1, -1, -1)
    return next((i for i in places if isinstance(messages[i], AIMessage)), -1)


def text_of(answer: AIMessage, messages: Sequence[BaseMessage]) -> str:
    """Return what an answer says: its words, and the arguments of answers given as calls.

    Args:
        answer: The answer.
        messages: What came with it. A call that has been answered already is no call: that is
            how structured output is given.
    """
    structured = {m.tool_call_id for m in messages if isinstance(m, ToolMessage)}
    given = [call for call in answer.tool_calls if call["id"] in structured]
    called = [f"{call['name']} {canonical_json(call['args'])}" for call in given]
    return "\n".join(part for part in (str(answer.text).strip(), *called) if part)


def mark_of(answer: AIMessage, text: str, place: Sequence[str], sight: Sight) -> str:
    """Return the mark by which an answer that has passed is known again.

    It has passed in one place: the same words about another picture are another answer.
    """
    return _mark("answer", [text, sorted(sight.media(answer)), list(place)])


def mark_of_request(place: Sequence[str]) -> str:
    """Return the mark by which a request that has passed in a place is known again."""
    return _mark("request", list(place))


def _mark(kind: str, of: Any) -> str:
    text = canonical_json(of)
    return f"{kind}:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def refusal(ruling: Ruling, policy: Policy, *, id: str | None = None) -> AIMessage:
    """Return what is said instead of an answer, with the verdict on it."""
    text = policy.review_text if ruling.asks else policy.refusal_text
    if ruling.verdict is None:
        text = f"{text} ({ruling.reason})"
    metadata: dict[str, Any] = {"finish_reason": "content_filter"}
    if ruling.verdict is not None:
        metadata |= to_metadata([ruling.verdict])
    return AIMessage(content=text, id=id, response_metadata=metadata)


def told_on(answer: AIMessage, stage: Stage) -> Verdict | None:
    """Return the verdict of a guarded model that is on its answer."""
    return Verdict.from_message(answer, stage=stage)
