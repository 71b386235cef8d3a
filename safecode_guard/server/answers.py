"""Answers and verdicts, in the form of the API."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from langchain_core.messages import AIMessage, AIMessageChunk

from safecode_guard.verdict import Verdict, gravest

VERDICT_HEADER: Final = "x-safecode-verdict"
"""The gravest verdict so far, as JSON: id, stage, label, action and p_unsafe."""

_REASONS: Final = ("stop", "length", "tool_calls", "content_filter")
_WITHHELD: Final = ("review", "block")


@dataclass(frozen=True)
class Completion:
    """One answer in the making: its id, and what stands in all its parts."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answer: AIMessage) -> dict[str, Any]:
        """Return a finished answer."""
        verdicts = Verdict.all_from_message(answer)
        message: dict[str, Any] = {"role": "assistant", "content": str(answer.text) or None}
        if refusal := answer.additional_kwargs.get("refusal"):
            message["refusal"] = refusal
        if calls := _calls(answer):
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "finish_reason": _reason(answer, verdicts)}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": _usage(answer),
            "safecode": told(verdicts),
        }

    def withheld(self, verdict: Verdict, text: str) -> dict[str, Any]:
        """Return what is said in place of an answer whose turn was stopped."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "content_filter"}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": _usage(AIMessage(content="")),
            "safecode": told([verdict]),
        }

    def part(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        """Return one part of a streamed answer."""
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def usage(self, answer: AIMessage) -> dict[str, Any]:
        """Return the part that tells the tokens of a streamed answer."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(answer)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


class PartsOf:
    """Turns the chunks of one streamed answer into parts; the last tells the verdicts."""

    def __init__(self, completion: Completion, *, with_usage: bool) -> None:
        self._completion, self._with_usage = completion, with_usage
        self._whole: AIMessageChunk | None = None
        self._stopped: tuple[Verdict, ...] = ()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What has been told so far."""
        told = () if self._whole is None else Verdict.all_from_message(self._whole)
        return told + self._stopped

    def of(self, chunk: AIMessageChunk) -> Iterator[dict[str, Any]]:
        """Yield the parts that a chunk gives."""
        first = self._whole is None
        self._whole = chunk if self._whole is None else self._whole + chunk
        if first:
            yield self._completion.part({"role": "assistant", "content": ""})
        if text := str(chunk.text):
            yield self._completion.part({"content": text})
        if refusal := chunk.additional_kwargs.get("refusal"):
            yield self._completion.part({"refusal": refusal})
        if chunk.tool_call_chunks:
            calls = [_call_part(index, call) for index, call in enumerate(chunk.tool_call_chunks)]
            yield self._completion.part({"tool_calls": calls})

    def stopped(self, verdict: Verdict, text: str) -> Iterator[dict[str, Any]]:
        """Yield what is said in place of an answer whose turn was stopped."""
        self._stopped = (verdict,)
        yield from self.of(AIMessageChunk(content=text))

    def end(self) -> Iterator[dict[str, Any]]:
        """Yield the closing parts."""
        whole = self._whole or AIMessageChunk(content="")
        last = self._completion.part({}, _reason(whole, self.verdicts))
        yield {**last, "safecode": told(self.verdicts)}
        if self._with_usage:
            yield {**self._completion.usage(whole), "safecode": told(self.verdicts)}


def told(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return verdicts for a client: the gravest in short, and each of them.

    A turn that was not judged has no verdict, and passes.
    """
    worst = gravest(verdicts)
    return {
        "action": worst.standing if worst else "pass",
        "label": worst.label if worst else None,
        "p_unsafe": worst.p_unsafe if worst else None,
        "verdicts": [verdict.to_json() for verdict in verdicts],
    }


def verdict_header(verdicts: Iterable[Verdict]) -> dict[str, str]:
    """Return the header that tells the gravest verdict; {} if there is none."""
    worst = gravest(verdicts)
    if worst is None:
        return {}
    names = {"id", "stage", "label", "action", "p_unsafe"}
    return {VERDICT_HEADER: json.dumps(worst.model_dump(mode="json", include=names))}


def event(data: dict[str, Any]) -> str:
    """Return one server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


DONE: Final = "data: [DONE]\n\n"


def _reason(answer: AIMessage, verdicts: Sequence[Verdict]) -> str:
    worst = gravest(verdicts)
    if worst is not None and worst.standing in _WITHHELD:
        return "content_filter"
    given = answer.response_metadata.get("finish_reason")
    return given if given in _REASONS else "stop"


def _calls(answer: AIMessage) -> list[dict[str, Any]]:
    """Return tool calls; one that is no JSON stands as the model wrote it."""
    read = [
        (c["id"], c["name"], json.dumps(c["args"], ensure_ascii=False)) for c in answer.tool_calls
    ]
    unread = [(c["id"], c["name"] or "", c["args"] or "") for c in answer.invalid_tool_calls]
    return [
        {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id, name, arguments in [*read, *unread]
    ]


def _call_part(index: int, call: Any) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["args"] or ""}
    place = call["index"] if isinstance(call["index"], int) else index
    part: dict[str, Any] = {"index": place, "function": function}
    return {**part, "id": call["id"], "type": "function"} if call["id"] else part


def _usage(answer: AIMessage) -> dict[str, int]:
    used = answer.usage_metadata
    return {
        "prompt_tokens": used["input_tokens"] if used else 0,
        "completion_tokens": used["output_tokens"] if used else 0,
        "total_tokens": used["total_tokens"] if used else 0,
    }
