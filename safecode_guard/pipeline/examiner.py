"""The first half of a turn: route it, judge it, and make its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safecode_guard.judges.cache import JudgementCache
from safecode_guard.judges.failsafe import arun_judge, run_judge, run_many
from safecode_guard.judges.protocol import Judge, JudgeRequest, ToolCallSubject
from safecode_guard.pipeline.routing import Route, route
from safecode_guard.pipeline.rules import Decision, decide, without_steering
from safecode_guard.policy import Policy
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import (
    DecodingRecord,
    Judgement,
    JudgeRecord,
    PolicyRef,
    ToolCallRef,
    Verdict,
)


@dataclass(frozen=True)
class Examiner:
    """Judges requests under a policy; needs no model of its own."""

    judge: Judge
    policy: Policy
    cache: JudgementCache
    digest: str
    """The policy's digest, own judge and strategy included."""
    steers: bool = True
    """Whether the guarded model can be steered at all."""

    def route(self, turn: Turn) -> Route:
        """Return what is to be done with a turn before anything is judged."""
        return route(turn, self.policy)

    def recall(self, request: JudgeRequest) -> Judgement | None:
        """Return the cached judgement of a request, if there is one."""
        return self.cache.get(request.key(self.judge.id, self.judge.prompt_version))

    def remember(self, request: JudgeRequest, judgement: Judgement) -> None:
        """Cache a judgement; failed ones are not kept."""
        self.cache.put(request.key(self.judge.id, self.judge.prompt_version), judgement)

    def judge_all(self, requests: Sequence[JudgeRequest]) -> list[Judgement]:
        """Judge requests, from the cache where it can; never raises for a judge's failure."""
        found = [self.recall(request) for request in requests]
        missing = [i for i, judgement in enumerate(found) if judgement is None]
        fresh = self._judge([requests[i] for i in missing])
        for i, judgement in zip(missing, fresh, strict=True):
            self.remember(requests[i], judgement)
            found[i] = judgement
        return [judgement for judgement in found if judgement is not None]

    async def ajudge(self, request: JudgeRequest) -> Judgement:
        """Judge one request without blocking the event loop, from the cache where it can."""
        judgement = self.recall(request)
        if judgement is None:
            timeout = self.policy.judge.timeout_s
            judgement = await arun_judge(self.judge, request, timeout_s=timeout)
            self.remember(request, judgement)
        return judgement

    def _judge(self, requests: list[JudgeRequest]) -> list[Judgement]:
        timeout = self.policy.judge.timeout_s
        if any(request.prefix is not None for request in requests) or len(requests) == 1:
            return [run_judge(self.judge, request, timeout_s=timeout) for request in requests]
        return run_many(self.judge, requests, timeout_s=timeout)

    def decide(self, judgement: Judgement) -> Decision:
        """Return label and action of a judgement."""
        decision = decide(judgement, self.policy)
        return decision if self.steers else without_steering(decision)

    def unjudgeable(self) -> Decision:
        """Return the decision on a turn with media that cannot be judged."""
        return Decision(None, self.policy.actions.unjudgeable, degraded=True)

    def check(self, request: JudgeRequest, *, run_id: str | None = None) -> Verdict:
        """Return the verdict on a request; nothing is generated."""
        settled = self._settled(request)
        judgement = None if settled else self.judge_all([request])[0]
        return self._checked(request, settled, judgement, run_id)

    async def acheck(self, request: JudgeRequest, *, run_id: str | None = None) -> Verdict:
        """Return the verdict on a request without blocking the event loop; see `check`."""
        settled = self._settled(request)
        judgement = None if settled else await self.ajudge(request)
        return self._checked(request, settled, judgement, run_id)

    def _settled(self, request: JudgeRequest) -> Decision | None:
        """Return the decision on what need not be judged, or cannot be."""
        kind = self.route(request.turn).kind
        if kind == "refuse":
            return self.unjudgeable()
        return Decision(None, "pass") if kind == "pass" else None

    def _checked(
        self,
        request: JudgeRequest,
        settled: Decision | None,
        judgement: Judgement | None,
        run_id: str | None,
    ) -> Verdict:
        decision = settled if judgement is None else self.decide(judgement)
        assert decision is not None
        return self.verdict(request, decision, judgement, run_id=run_id)

    def verdict(
        self,
        request: JudgeRequest,
        decision: Decision,
        judgement: Judgement | None,
        *,
        decoding: DecodingRecord | None = None,
        run_id: str | None = None,
    ) -> Verdict:
        """Return the record of a decision; captions and rationales only if the policy says so."""
        turn, call, policy = request.turn, request.tool_call, self.policy
        content = judgement if judgement is not None and policy.record_content else None
        return Verdict(
            run_id=run_id,
            stage=request.stage,
            label=decision.label,
            action=decision.action,
            degraded=decision.degraded,
            p_unsafe=judgement.p_unsafe if judgement else None,
            label_mass=judgement.label_mass if judgement else None,
            categories=judgement.categories if judgement else (),
            caption=content.caption if content else None,
            rationale=content.rationale if content else None,
            parse_status=judgement.parse_status if judgement else "not_run",
            images=turn.subjects,
            media_skipped=turn.skipped,
            tool_call=ToolCallRef(id=call.id, name=call.name, args_sha256=call.args_sha256())
            if call
            else None,
            judge=_record(judgement) if judgement else None,
            decoding=decoding,
            policy=PolicyRef(name=policy.name, digest=self.digest),
            error=judgement.failed if judgement else None,
        )


def _record(judgement: Judgement) -> JudgeRecord:
    return JudgeRecord(
        id=judgement.judge_id,
        prompt_version=judgement.prompt_version,
        latency_ms=judgement.latency_ms,
        cached=judgement.cached,
        members=judgement.members,
        calibration_id=judgement.calibration_id,
    )


def subject_of(
    turn: Turn, tool_call: Mapping[str, Any] | None, *, deadline: float | None = None
) -> JudgeRequest:
    """Return the request to judge a turn, or a tool call (LangChain's form) made in it."""
    if tool_call is None:
        return JudgeRequest("input", turn, deadline=deadline)
    call = ToolCallSubject(
        str(tool_call.get("id") or ""), tool_call["name"], dict(tool_call["args"])
    )
    return JudgeRequest("tool_call", turn, tool_call=call, deadline=deadline)
