"""Examines a subject: route it, judge it, conclude the verdict, and tell it.

Here alone verdicts are made. Whoever needs one gets it from `Examiner.conclude`, with the id of its
run, and nobody edits it afterwards. A steered turn's is closed by `Examiner.close`, once its answer
is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from safecode_guard.judges.cache import JudgementCache
from safecode_guard.judges.deadlines import Strays
from safecode_guard.judges.health import HealthReport, JudgeHealth
from safecode_guard.judges.protocol import Judge, JudgeRequest, OpenPrompt, ToolCallSubject
from safecode_guard.pipeline.host import Host, ThisThread, run
from safecode_guard.pipeline.requests import Run
from safecode_guard.pipeline.routing import Route, route
from safecode_guard.pipeline.rules import (
    Decision,
    decide,
    label_of,
    unjudgeable,
    without_steering,
)
from safecode_guard.policy import Policy
from safecode_guard.taxonomy import Stage
from safecode_guard.turns.scene import SCENE_REQUESTS, Scene, Shown, scenes_of
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import (
    DecodingRecord,
    FollowUp,
    Judgement,
    JudgeRecord,
    PolicyRef,
    ToolCallRef,
    Verdict,
)

Sink = Callable[[Verdict], None]
"""Is given every verdict of an examiner, such as an audit log."""


@dataclass(frozen=True)
class Subject:
    """What is examined: a turn, a tool call in it, a tool's result, or the answer to it."""

    stage: Stage
    turn: Turn
    tool_call: ToolCallSubject | None = None
    result: str | None = None
    """The text that a tool returned; its pictures are the turn's newest."""
    answer: str | None = None
    """The finished answer; its pictures are the turn's newest."""
    own_images: int = 0
    """How many of the newest pictures the result or the answer brought."""
    deadline: float | None = None
    run: Run = field(default_factory=Run)

    @property
    def tool(self) -> str | None:
        """The tool's name, at the stages of tools."""
        return self.tool_call.name if self.tool_call else None

    def requests(
        self,
        *,
        most: int,
        asked: int = SCENE_REQUESTS,
        shown: Shown = "together",
        prompt: OpenPrompt | None = None,
    ) -> list[JudgeRequest]:
        """Return what is asked of the judge: one request for each scene that has to be judged.

        The first is about the newest pictures. Earlier ones are judged with a user's turn, since
        the model is shown them with it; a result's or an answer's own are judged with that. A
        tool call is judged in its whole scene only: a picture by itself may be of another place.
        """
        reach = None if self.stage == "input" else self.own_images
        shown = "together" if self.stage == "tool_call" else shown
        return [
            JudgeRequest(
                self.stage,
                scene,
                self.tool_call,
                self.result,
                self.answer,
                deadline=self.deadline,
                prompt=prompt,
            )
            for scene in scenes_of(self.turn, most=most, requests=asked, reach=reach, shown=shown)
        ]


@dataclass(frozen=True)
class Finding:
    """What decided about a subject, and the judgement and the scene that it rests on."""

    decision: Decision
    judgement: Judgement | None = None
    scene: Scene | None = None

    @property
    def gravity(self) -> tuple[int, int, float]:
        """Rank among findings on parts of one thing: the gravest decides for all."""
        p = self.judgement.p_unsafe if self.judgement else None
        return (*self.decision.gravity, 1.0 if p is None else p)


@dataclass(frozen=True)
class Examiner:
    """Examines subjects under a policy; needs no model of its own."""

    judge: Judge
    policy: Policy
    cache: JudgementCache
    digest: str
    """The policy's digest, own judge and strategy included."""
    steers: bool = True
    """Whether what answers can be steered at all."""
    judges: Mapping[Stage, Judge] = field(default_factory=dict)
    """Judges of stages that have one of their own."""
    sinks: tuple[Sink, ...] = ()
    strays: Strays = field(default_factory=Strays)
    """Threads of judges that missed their deadline and still run."""
    healths: dict[str, JudgeHealth] = field(default_factory=dict)
    """How each judge is doing, by its id."""
    objects: Mapping[str, str] = field(default_factory=dict)
    """Ids of objects outside the policy that are part of the digest."""

    def under(self, policy: Policy) -> Examiner:
        """Return this examiner under another policy, with the same judges, cache and health."""
        return replace(self, policy=policy, digest=policy.digest(**self.objects))

    def judge_at(self, stage: Stage) -> Judge:
        """Return the judge of a stage."""
        return self.judges.get(stage, self.judge)

    def health(self) -> tuple[HealthReport, ...]:
        """Return how the judges are doing that have been asked."""
        return tuple(health.report() for health in list(self.healths.values()))

    def route(self, subject: Subject) -> Route:
        """Return what is to be done with a subject before anything is judged."""
        return route(subject.turn, self.policy, subject.stage, tool=subject.tool)

    def settled(self, subject: Subject) -> Finding | None:
        """Return the finding on what need not be judged, or cannot be; None: it has to be."""
        kind = self.route(subject).kind
        if kind == "refuse":
            return Finding(unjudgeable(self.policy, subject.stage, tool=subject.tool))
        return Finding(Decision(None, "pass")) if kind == "pass" else None

    async def judged(
        self, subjects: Sequence[Subject], host: Host, prompts: Sequence[OpenPrompt | None] = ()
    ) -> list[Finding]:
        """Judge subjects of one stage, from the cache where it can, and decide.

        Never raises for what a judge does: a failed check has an action of its own.
        """
        opened = prompts or [None] * len(subjects)
        asked = [
            subject.requests(
                most=self.policy.scene_images,
                asked=self.policy.scene_requests,
                shown=self.policy.scene_judged,
                prompt=prompt,
            )
            for subject, prompt in zip(subjects, opened, strict=True)
        ]
        judge = self.judge_at(subjects[0].stage)
        flat = [request for requests in asked for request in requests]
        judgements = iter(await self._judgements(judge, flat, host))
        return [
            self._found(subject, requests, [next(judgements) for _ in requests])
            for subject, requests in zip(subjects, asked, strict=True)
        ]

    async def _judgements(
        self, judge: Judge, requests: list[JudgeRequest], host: Host
    ) -> list[Judgement]:
        keys = [request.key(judge.id, judge.prompt_version) for request in requests]
        look = partial(self._known, keys)
        found = await host.call(look) if self.cache.blocks else look()
        missing = [i for i, judgement in enumerate(found) if judgement is None]
        timeout = self.policy.judge.timeout_s
        asked = [requests[i] for i in missing]
        fresh = (
            await host.judge(judge, asked, timeout_s=timeout, strays=self.strays) if asked else []
        )
        for i, judgement in zip(missing, fresh, strict=True):
            found[i] = judgement
            label = label_of(judgement, self.policy.thresholds)
            self.healths.setdefault(judge.id, JudgeHealth(judge.id)).note(judgement, label)
        keep = partial(self._keep, [keys[i] for i in missing], fresh)
        if fresh and self.cache.blocks:
            await host.call(keep)
        else:
            keep()
        return [judgement for judgement in found if judgement is not None]

    def _known(self, keys: Sequence[str]) -> list[Judgement | None]:
        return [self.cache.get(key) for key in keys]

    def _keep(self, keys: Sequence[str], judgements: Sequence[Judgement]) -> None:
        for key, judgement in zip(keys, judgements, strict=True):
            self.cache.put(key, judgement)

    def _found(
        self, subject: Subject, requests: list[JudgeRequest], judgements: list[Judgement]
    ) -> Finding:
        """Return the gravest finding: one dangerous scene makes the whole turn dangerous."""
        findings = [
            Finding(self.decide(judgement, subject), judgement, request.scene)
            for request, judgement in zip(requests, judgements, strict=True)
        ]
        return max(findings, key=lambda finding: finding.gravity)

    def decide(self, judgement: Judgement, subject: Subject) -> Decision:
        """Return label and action of a judgement."""
        decision = decide(judgement, self.policy, subject.stage, tool=subject.tool)
        return decision if self.steers else without_steering(decision)

    def check(self, subject: Subject) -> Verdict:
        """Return the verdict on a subject; nothing is generated."""
        return run(self.examine(subject, ThisThread()))

    async def find(self, subject: Subject, host: Host) -> Finding:
        """Return the finding on a subject; no verdict is made of it."""
        return self.settled(subject) or (await self.judged([subject], host))[0]

    async def examine(self, subject: Subject, host: Host) -> Verdict:
        """Return the verdict on a subject in the host's form; see `check`."""
        finding = await self.find(subject, host)
        return await host.call(partial(self.conclude, subject, finding))  # sinks may block

    def conclude(
        self, subject: Subject, finding: Finding, *, decoding: DecodingRecord | None = None
    ) -> Verdict:
        """Make the verdict of a finding, and tell it to the run and to every sink.

        What was neither judged nor refused is told to nobody: there is nothing to tell.
        """
        verdict = self._verdict(subject, finding, decoding)
        if verdict.label is not None or verdict.degraded:
            for sink in self.sinks:
                sink(verdict)
            subject.run.tell(verdict)
        return verdict

    def close(
        self,
        subject: Subject,
        verdict: Verdict,
        *,
        obeyed: bool | None,
        decoding: DecodingRecord | None = None,
        followed_by: FollowUp | None = None,
    ) -> Verdict:
        """Return a steered turn's verdict with what became of its answer, and tell it once more.

        It keeps its id: whoever keeps verdicts by their ids has the whole one. Sinks are told that
        have a method ``closed``; the others hear of each verdict once. Where nothing can be said of
        the answer it stands as it was told.
        """
        if obeyed is None and followed_by is None:
            return verdict
        became: dict[str, Any] = {"obeyed": obeyed, "followed_by": followed_by}
        if decoding is not None:
            became["decoding"] = decoding
        closed = verdict.model_copy(update=became)
        known = self.healths.get(verdict.judge.id) if verdict.judge else None
        if known is not None and obeyed is not None:
            known.note_answer(obeyed=obeyed)
        for sink in self.sinks:
            if tell := getattr(sink, "closed", None):
                tell(closed)
        subject.run.tell(closed)
        return closed

    def _verdict(
        self, subject: Subject, finding: Finding, decoding: DecodingRecord | None
    ) -> Verdict:
        turn, judgement, decision = subject.turn, finding.judgement, finding.decision
        content = judgement if judgement is not None and self.policy.record_content else None
        return Verdict(
            run_id=subject.run.id,
            stage=subject.stage,
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
            left_out=turn.left_out,
            decided_by=finding.scene.indices if finding.scene else None,
            tool_call=_call_record(subject.tool_call),
            judge=self._judge_record(judgement),
            decoding=decoding,
            policy=PolicyRef(name=self.policy.name, digest=self.digest),
            error=judgement.failed if judgement else None,
        )

    def _judge_record(self, judgement: Judgement | None) -> JudgeRecord | None:
        if judgement is None:
            return None
        known = self.healths.get(judgement.judge_id)
        return JudgeRecord(
            id=judgement.judge_id,
            prompt_version=judgement.prompt_version,
            latency_ms=judgement.latency_ms,
            reply_form=judgement.reply_form,
            cached=judgement.cached,
            members=judgement.members,
            decided=judgement.decided,
            calibration_id=judgement.calibration_id,
            unlikeness=judgement.unlikeness,
            health="ok" if known is None else known.health,
        )


def _call_record(call: ToolCallSubject | None) -> ToolCallRef | None:
    if call is None:
        return None
    return ToolCallRef(id=call.id, name=call.name, args_sha256=call.args_sha256())
