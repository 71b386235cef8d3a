"""The output rail: the finished answer is judged before any of it may leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from safecode_guard.errors import TurnBlocked
from safecode_guard.judges.protocol import ToolCallSubject
from safecode_guard.pipeline.case import Case
from safecode_guard.pipeline.examiner import Subject
from safecode_guard.pipeline.requests import TurnResult
from safecode_guard.policy import Policy
from safecode_guard.turns.turn import ImagePart, Turn, TurnMessage
from safecode_guard.verdict import Verdict

_FORCED = (
    "The answer has to follow a form, which cannot hold a refusal: give it a refusal branch "
    "(allow_refusal=True), or catch TurnBlocked."
)


def applies(case: Case, policy: Policy) -> bool:
    """Return whether a case's finished answer has to be judged."""
    label = case.verdict.label if case.verdict else None
    return policy.stages.output.applies(label, judged=case.verdict is not None)


def answer_subject(case: Case, result: TurnResult, read: Callable[[], Turn] | None) -> Subject:
    """Return a finished answer as it is examined: its text, its calls and its pictures.

    Args:
        case: The turn that was answered.
        result: The answer.
        read: Reads the answer where it is more than its text.
    """
    request = case.request
    turn, text, own = request.turn, result.text, 0
    if read is not None:
        answer = read()
        own = len(answer.images)
        said = "\n".join(message.text for message in answer.messages)
        text = "\n".join([said, *_calls(answer), *_unread_calls(result.native)]).strip()
        turn = _followed(turn, answer)
    return Subject(
        "output", turn, answer=text, own_images=own, deadline=request.deadline, run=request.run
    )


def _calls(answer: Turn) -> list[str]:
    return [
        ToolCallSubject(call.id, call.name, call.arguments).canonical()
        for message in answer.messages
        for call in message.tool_calls
    ]


def _unread_calls(message: Any) -> list[str]:
    """Return the calls of an answer whose arguments are no JSON: they are handed out as well."""
    calls = getattr(message, "invalid_tool_calls", None) or ()
    return [f"{call.get('name')} {call.get('args')}" for call in calls]


def _followed(turn: Turn, answer: Turn) -> Turn:
    """Return a conversation with an answer after it, pictures and unreadable media included."""
    first = len(turn.images)
    messages = [_shifted(message, first) for message in answer.messages]
    return replace(
        turn,
        messages=(*turn.messages, *messages),
        images=(*turn.images, *answer.images),
        skipped=(*turn.skipped, *answer.skipped),
        left_out=(*turn.left_out, *answer.left_out),
    )


def _shifted(message: TurnMessage, by: int) -> TurnMessage:
    parts = (
        ImagePart(part.index + by) if isinstance(part, ImagePart) else part
        for part in message.parts
    )
    unshown = tuple(index + by for index in message.unshown)
    return replace(message, parts=tuple(parts), unshown=unshown)


def withheld(case: Case, verdicts: tuple[Verdict, ...], policy: Policy) -> TurnResult | TurnBlocked:
    """Return what a turn is answered with in place of what its last verdict stopped.

    Nothing of the model's answer is in it: no text, token, trace or count.
    """
    last = verdicts[-1]
    if case.request.forced or case.request.constraint is not None:
        return TurnBlocked(last, hint=_FORCED)
    if policy.on_block == "raise":
        return TurnBlocked(last)
    text = policy.review_text if last.action == "review" else policy.refusal_text
    return TurnResult(text, "content_filter", verdicts=verdicts)


def replaced(verdicts: tuple[Verdict, ...], policy: Policy) -> TurnResult:
    """Return the guard's refusal in place of an answer that did not obey."""
    return TurnResult(policy.refusal_text, "content_filter", verdicts=verdicts)
