"""What is recorded of a check that failed: which error, and nothing of the conversation."""

from __future__ import annotations

import logging
from typing import Final

from safecode_guard.errors import GuardError, JudgeError, JudgeTimeout, ModelError
from safecode_guard.verdict import Judgement, ParseStatus, ReplyForm

UNREADABLE: Final = "the judge's reply could not be read"
_LOG: Final = logging.getLogger("safecode_guard.judges")


def failed_judgement(
    judge_id: str, prompt_version: str, error: Exception, *, latency_ms: float = 0.0
) -> Judgement:
    """Return the judgement of a check that failed: no label, no probability, a reason.

    The error's own text may quote the conversation, so it is neither recorded nor logged, except
    at level DEBUG.
    """
    _LOG.debug("Judge %r failed", judge_id, exc_info=error)
    return _failed(judge_id, prompt_version, describe_failure(error), "not_run", latency_ms)


def unreadable_reply(
    judge_id: str,
    prompt_version: str,
    *,
    latency_ms: float = 0.0,
    reply_form: ReplyForm | None = None,
) -> Judgement:
    """Return the judgement of a reply that could not be read: a failed check, no verdict."""
    failed = _failed(judge_id, prompt_version, UNREADABLE, "malformed", latency_ms)
    return failed.model_copy(update={"reply_form": reply_form})


def describe_failure(error: Exception) -> str:
    """Return the error's class, its cause's class, and why: its ``reason``, or a fixed phrase."""
    name = type(error).__name__
    cause = error.__cause__
    origin = "" if cause is None else f" (from {type(cause).__name__})"
    return f"{name}{origin}: {getattr(error, 'reason', None) or _phrase(error)}"


def _failed(
    judge_id: str, prompt_version: str, reason: str, status: ParseStatus, latency_ms: float
) -> Judgement:
    _LOG.warning("Judge %r failed: %s", judge_id, reason)
    return Judgement(
        judge_id=judge_id,
        prompt_version=prompt_version,
        parse_status=status,
        failed=reason,
        latency_ms=latency_ms,
    )


def _phrase(error: Exception) -> str:
    if isinstance(error, JudgeTimeout | TimeoutError):
        return "the judge did not answer before its deadline"
    if isinstance(error, JudgeError):
        return "the check failed"
    if isinstance(error, ModelError):
        return "the judging model could not be asked"
    if isinstance(error, GuardError):
        return "the check could not be made"
    return "the judge raised an unexpected error"
