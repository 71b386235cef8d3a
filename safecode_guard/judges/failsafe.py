"""Asking a judge so that nothing it does can break the turn, or pass for a verdict.

Errors, timeouts, wrong types and findings that make no sense become a judgement with ``failed``
set; what follows from that is the policy's business. Only what is no ``Exception`` (an interrupt,
a cancelled task) goes through.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from safecode_guard.errors import JudgeTimeout
from safecode_guard.judges.deadlines import (
    Strays,
    acall_before,
    call_before,
    earliest,
    remaining,
)
from safecode_guard.judges.failures import failed_judgement
from safecode_guard.judges.findings import checked_finding
from safecode_guard.judges.protocol import BaseJudge, BatchJudge, Judge, JudgeRequest
from safecode_guard.verdict import Judgement


def run_judge(
    judge: Judge,
    request: JudgeRequest,
    *,
    timeout_s: float | None = None,
    strays: Strays | None = None,
) -> Judgement:
    """Return the judgement of a request; never raises for what the judge does.

    A judge that honours deadlines runs in this thread. Another one with a deadline or a timeout
    runs in a thread of its own, which is abandoned when time is up.

    Args:
        judge: Any judge, the library's or a user's.
        request: What to judge.
        timeout_s: Time for this judgement, within the request's own deadline.
        strays: The judge's abandoned threads, to bound them; whoever asks it again and again
            keeps one object of these.
    """
    started = time.monotonic()
    request = replace(request, deadline=earliest(request.deadline, timeout_s))
    try:
        remaining(request.deadline)
        if judge.abilities.honours_deadline:
            judgement = judge.judge(request)
        else:
            deadline = request.deadline
            judgement = call_before(deadline, lambda: judge.judge(request), strays=strays)
        return _checked(judgement, started)
    except Exception as error:  # a judge is foreign code: any error of its is a failed check
        return _failed(judge, error, started)


async def arun_judge(
    judge: Judge,
    request: JudgeRequest,
    *,
    timeout_s: float | None = None,
    strays: Strays | None = None,
) -> Judgement:
    """Return the judgement of a request without blocking the event loop, as `run_judge` does.

    At the deadline the judge's task is cancelled; the thread of a judge that has no async form is
    abandoned.
    """
    started = time.monotonic()
    request = replace(request, deadline=earliest(request.deadline, timeout_s))
    try:
        if request.deadline is not None and _only_blocks(judge):
            work = partial(judge.judge, request)
            judgement = await acall_before(request.deadline, work, strays=strays)
        else:
            async with asyncio.timeout(remaining(request.deadline)):
                judgement = await judge.ajudge(request)
        return _checked(judgement, started)
    except Exception as error:  # a judge is foreign code: any error of its is a failed check
        return _failed(judge, error, started)


def _only_blocks(judge: Judge) -> bool:
    """Return whether a judge has no async form of its own, and may overlook its deadline."""
    inherited = getattr(type(judge), "ajudge", None) is BaseJudge.ajudge
    return inherited and not judge.abilities.honours_deadline


def run_many(
    judge: Judge,
    requests: Sequence[JudgeRequest],
    *,
    timeout_s: float | None = None,
    strays: Strays | None = None,
) -> list[Judgement]:
    """Return the judgements of requests, in order, in one batch where the judge can.

    Requests whose deadline has passed are left out of the batch and fail on their own. If the
    batch breaks for another reason than time, each request is judged by itself, so that one bad
    request does not fail the rest.
    """
    requests = [replace(r, deadline=earliest(r.deadline, timeout_s)) for r in requests]
    if not isinstance(judge, BatchJudge) or len(requests) < 2:
        return [run_judge(judge, request, strays=strays) for request in requests]
    started = time.monotonic()
    judgements = {i: late for i, r in enumerate(requests) if (late := _late(judge, r, started))}
    open_rows = [i for i in range(len(requests)) if i not in judgements]
    batch = [requests[i] for i in open_rows]
    try:
        found = _run_batch(judge, batch, strays) if batch else []
        judgements |= {i: _checked(j, started) for i, j in zip(open_rows, found, strict=True)}
    except JudgeTimeout as error:
        judgements |= {i: _failed(judge, error, started) for i in open_rows}
    except Exception:  # told apart row by row; each row's own error is then recorded
        judgements |= {i: run_judge(judge, requests[i], strays=strays) for i in open_rows}
    return [judgements[i] for i in range(len(requests))]


def _run_batch(
    judge: BatchJudge, batch: list[JudgeRequest], strays: Strays | None
) -> list[Judgement]:
    if judge.abilities.honours_deadline:
        return judge.judge_many(batch)
    deadlines = [request.deadline for request in batch if request.deadline is not None]
    first = min(deadlines, default=None)
    return call_before(first, lambda: judge.judge_many(batch), strays=strays)


def _late(judge: Judge, request: JudgeRequest, started: float) -> Judgement | None:
    try:
        remaining(request.deadline)
    except JudgeTimeout as error:
        return _failed(judge, error, started)
    return None


def _checked(finding: Any, started: float) -> Judgement:
    """Return what a judge gave if it makes sense, with the time that it took."""
    if inspect.iscoroutine(finding):
        finding.close()
    judgement = checked_finding(finding)
    return judgement.model_copy(update={"latency_ms": (time.monotonic() - started) * 1000})


def _failed(judge: Judge, error: Exception, started: float) -> Judgement:
    return failed_judgement(
        str(getattr(judge, "id", type(judge).__name__)),
        str(getattr(judge, "prompt_version", "unknown")),
        error,
        latency_ms=(time.monotonic() - started) * 1000,
    )
