"""LiteLLM's generic guardrail: its proxy asks before it calls a model, and before it answers.

Its three answers know no steering: what would be guided is blocked, unless it was judged safe.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage

from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.server.wire import GuardrailRequest, read_messages
from safecode_guard.turns.drafts import is_removal
from safecode_guard.verdict import Verdict, gravest


async def guardrail(
    guard: SafeCoDeGuard, asked: GuardrailRequest
) -> tuple[dict[str, Any], list[Verdict]]:
    """Return ``{"action": "NONE"}``, or ``BLOCKED`` with the reason; and the verdicts.

    Raises:
        GuardError: If it cannot be read.
        Refused: If a message is none.
    """
    verdicts = [await guard.acheck(*args, **kwargs) for args, kwargs in _checks(asked)]
    stopped = [verdict for verdict in verdicts if not lets_pass(verdict)]
    worst = gravest(stopped)
    if worst is None:
        return {"action": "NONE"}, verdicts
    return {"action": "BLOCKED", "blocked_reason": _reason(worst)}, verdicts


def lets_pass(verdict: Verdict) -> bool:
    """Return whether something may go on unsteered."""
    return verdict.standing == "pass" or (verdict.standing == "guide" and verdict.label == "safe")


def call_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool call in LangChain's form, whether it came so or as the API has it."""
    if "function" not in given:
        return dict(given)
    function = given["function"]
    arguments = function.get("arguments")
    try:
        args = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        args = arguments  # unreadable, and judged as such
    return {"name": function.get("name"), "args": args or {}, "id": given.get("id")}


def _checks(asked: GuardrailRequest) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return the checks that are asked for: the turn, or the answer and the calls it makes."""
    messages = _messages(asked)
    if asked.input_type == "request":
        return [((messages,), {})]
    checks: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((messages,), {"tool_call": call_of(call)}) for call in asked.tool_calls or ()
    ]
    if asked.images:
        checks.append(((messages,), {}))
    if text := "\n".join(asked.texts).strip():
        checks.append(((messages,), {"stage": "output", "answer": text}))
    return checks


def _messages(asked: GuardrailRequest) -> list[BaseMessage]:
    given = read_messages(asked.structured_messages or [], "structured_messages")
    known = {url for message in given for url in _urls_of(message)}
    urls = [url for image in asked.images if (url := _url(image)) not in known]
    texts = asked.texts if asked.input_type == "request" and not given else []
    more: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    more += [{"type": "text", "text": text} for text in texts]
    return [*given, *([HumanMessage(more)] if more or not given else [])]


def _urls_of(message: BaseMessage) -> Iterator[Any]:
    """Yield the pictures that stand in a message as such, and are judged with it."""
    if is_removal(message):
        return
    for block in message.content if isinstance(message.content, list) else ():
        if isinstance(block, Mapping) and block.get("type") == "image_url":
            record = block.get("image_url")
            url = record.get("url") if isinstance(record, Mapping) else record
            if isinstance(url, str):
                yield url


def _url(image: str) -> str:
    if image.startswith(("data:", "http://", "https://")):
        return image
    return f"data:image/png;base64,{image}"  # what it really is, its bytes say


def _reason(verdict: Verdict) -> str:
    hazards = "".join(f", {category}" for category in verdict.categories)
    p = "" if verdict.p_unsafe is None else f", p {verdict.p_unsafe:.2f}"
    what = "the check failed" if verdict.error else f"judged {verdict.label}{p}{hazards}"
    return f"safecode-guard ({verdict.stage}): {what}."
