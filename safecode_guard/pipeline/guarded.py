"""A whole turn: examine it, steer it, decode it, and look at the answer once more if asked to."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from safecode_guard.engines.transformers.batch import (
    Delta,
    Job,
    answer,
    batch_key,
    contrasted,
    prefill,
)
from safecode_guard.engines.transformers.sharing import SharedPrefill, share
from safecode_guard.errors import GuardError, ModelError, TurnBlocked
from safecode_guard.judges.protocol import JudgeRequest, PromptingJudge
from safecode_guard.engines.transformers.protocol import Branch, CachedModel
from safecode_guard.pipeline.admission import Turnstile
from safecode_guard.pipeline.examiner import Examiner
from safecode_guard.pipeline.requests import TurnEvent, TurnRequest, TurnResult, collected
from safecode_guard.pipeline.routing import Route
from safecode_guard.pipeline.rules import Decision, certainty_of
from safecode_guard.policy import Policy
from safecode_guard.steering.protocol import (
    LogitsStrategy,
    SteeringContext,
    Strategy,
    TurnPlan,
)
from safecode_guard.steering.safecode.parameters import SteeringParameters
from safecode_guard.steering.safecode.views import second_views
from safecode_guard.steering.trace import Traced
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import DecodingRecord, Judgement, Verdict


@dataclass(eq=False)
class _Case:
    """One request on its way through the stages."""

    request: TurnRequest
    route: Route
    judgement: Judgement | None = None
    verdict: Verdict | None = None
    turn: Turn | None = None
    """What is answered: the request's turn, or a plan's edit of it."""
    strategy: LogitsStrategy | None = None
    second: Turn | None = None
    refuse: bool = False
    """Only the grammar's refusal branch may be decoded."""
    text: str = ""

    @property
    def question(self) -> JudgeRequest:
        """The request as the judge gets it."""
        return JudgeRequest("input", self.request.turn, deadline=self.request.deadline)

    @property
    def stopped(self) -> bool:
        """Whether the verdict ends the turn before anything is generated."""
        return self.verdict is not None and self.verdict.action in ("block", "review")


class Pipeline:
    """Serves turns on one model under one policy. Holds no state of any turn."""

    def __init__(
        self,
        model: CachedModel,
        examiner: Examiner,
        *,
        strategy: Strategy,
        parameters: SteeringParameters,
        turnstile: Turnstile,
    ) -> None:
        self.model = model
        self.examiner = examiner
        self.strategy = strategy
        self.parameters = parameters
        self._turnstile = turnstile

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.examiner.policy

    def run(self, requests: Sequence[TurnRequest]) -> list[TurnResult | GuardError]:
        """Answer turns; those that fit together are decoded as one batch.

        A turn's own failure is returned in its place, so that it does not cost the others theirs.
        """
        return collected(self.stream(requests), len(requests))

    def stream(self, requests: Sequence[TurnRequest]) -> Generator[tuple[int, TurnEvent]]:
        """Answer turns and yield what happens, with the index of the turn it happens to.

        No text of a turn comes before its verdict.
        """
        cases = [_Case(request, self.examiner.route(request.turn)) for request in requests]
        groups: dict[str, list[int]] = {}
        for i, case in enumerate(cases):
            groups.setdefault(f"{case.route.kind} {batch_key(_job(case))}", []).append(i)
        for members in groups.values():
            try:
                for at, event in self._serve([cases[i] for i in members]):
                    yield members[at], event
            except GuardError as error:
                yield from ((i, error) for i in members)

    def _serve(self, cases: list[_Case]) -> Iterator[tuple[int, TurnEvent]]:
        """Serve cases of one kind that can share a batch."""
        kind = cases[0].route.kind
        own = self._judges_itself() and kind == "judge"
        if kind == "judge" and not own:
            self._judge(cases)
        deadline = min((c.request.deadline for c in cases if c.request.deadline), default=None)
        with self._turnstile.enter(deadline):
            shared = self._judge_shared(cases) if own else None
            for case in cases:
                self._conclude(case)
            for i, case in enumerate(cases):
                if case.verdict is not None:
                    yield i, case.verdict
            open_cases = [i for i, case in enumerate(cases) if not case.stopped]
            finished: list[tuple[int, TurnResult]] = []
            for i, event in self._answer(cases, open_cases, shared):
                if isinstance(event, TurnResult):
                    finished.append((i, event))
                elif not self._is_railed(cases[i]):
                    yield i, event
        for i, result in finished:
            yield from ((i, event) for event in self._released(cases[i], result))
        yield from ((i, self._stop(case)) for i, case in enumerate(cases) if case.stopped)

    # -- judging ------------------------------------------------------------------------------

    def _judges_itself(self) -> bool:
        judge = self.examiner.judge
        return isinstance(judge, PromptingJudge) and judge.model is self.model

    def _judge(self, cases: list[_Case]) -> None:
        """Judge cases that bring no judgement along."""
        asked = [case for case in cases if case.request.judgement is None]
        judgements = iter(self.examiner.judge_all([case.question for case in asked]))
        for case in cases:
            case.judgement = case.request.judgement or next(judgements)

    def _judge_shared(self, cases: list[_Case]) -> SharedPrefill | None:
        """Judge cases by the model itself, on a prefix that the answers go on to use."""
        requests = [case.question for case in cases]
        shared = self._share(cases, requests)
        if shared is not None:
            requests = [
                replace(request, prefix=shared.row(i)) for i, request in enumerate(requests)
            ]
        for case, judgement in zip(cases, self.examiner.judge_all(requests), strict=True):
            case.judgement = judgement
        return shared

    def _share(self, cases: list[_Case], requests: list[JudgeRequest]) -> SharedPrefill | None:
        """Prefill what questions and answers share, unless every judgement is known already."""
        judge = self.examiner.judge
        if not isinstance(judge, PromptingJudge) or all(map(self.examiner.recall, requests)):
            return None
        jobs = [_job(case) for case in cases]
        if self._may_contrast and all(_is_steerable(case.request) for case in cases):
            seconds = map(self._second, cases)
            jobs = [replace(job, second=s) for job, s in zip(jobs, seconds, strict=True)]
        try:
            return share(self.model, jobs, [judge.question(request) for request in requests])
        except ModelError:  # if it is the question that fails, that is a failed check, no more
            return None

    @property
    def _may_contrast(self) -> bool:
        """Whether the strategy could want second views, as far as can be told before a verdict."""
        return self.parameters.alpha > 0 and self.strategy.id not in ("plain", "verdict_prompt")

    def _second(self, case: _Case) -> Turn:
        """Return the turn with second views of its images; made once a turn."""
        if case.second is None:
            case.second = second_views(
                case.request.turn,
                parameters=self.parameters,
                seed=self._seed(case.request),
                working_size=self.model.working_size,
                keeps_image_size=self.model.family.keeps_image_size,
            )
        return case.second

    def _seed(self, request: TurnRequest) -> int:
        seed = request.sampling.seed
        return self.policy.decoding.seed if seed is None else seed

    # -- deciding -----------------------------------------------------------------------------

    def _conclude(self, case: _Case) -> None:
        """Make the case's verdict, prepare its steering, and tell whoever listens."""
        request, examiner = case.request, self.examiner
        case.turn = request.turn
        if case.route.kind == "pass":
            return
        decision = (
            examiner.unjudgeable() if case.judgement is None else examiner.decide(case.judgement)
        )
        if request.constraint is not None:
            decision = self._constrained(case, decision)
        steered = False
        if decision.action == "guide" and case.judgement and request.constraint is None:
            steered = self._prepare(case, decision, case.judgement)
        case.verdict = examiner.verdict(
            case.question,
            decision,
            case.judgement,
            decoding=self._record(request) if steered else None,
            run_id=request.run_id,
        )
        request.on_verdict(case.verdict)

    def _constrained(self, case: _Case, decision: Decision) -> Decision:
        """Decide on an answer under a grammar, which cannot be steered towards a refusal."""
        if decision.action != "guide":
            return decision
        if decision.label == "safe":
            return replace(decision, action="pass")
        if case.request.refusal is None:
            return replace(decision, action="block")
        case.refuse = True
        return decision

    def _prepare(self, case: _Case, decision: Decision, judgement: Judgement) -> bool:
        """Set how the case is steered; returns whether it is."""
        context = SteeringContext(
            label=decision.label,
            direction=decision.direction,
            certainty=certainty_of(judgement, decision.label),
            judgement=judgement,
            parameters=self._parameters_of(case.request),
            vocabulary=self.model.vocabulary,
            family=self.model.family,
            seed=self._seed(case.request),
        )
        plan = self.strategy.prepare(context)
        if isinstance(plan, TurnPlan):
            case.turn = plan.edit(case.request.turn)
        elif plan is not None:
            case.strategy = plan
            if case.request.trace:
                case.strategy = Traced(plan, self.model.vocabulary)
        return plan is not None

    def _parameters_of(self, request: TurnRequest) -> SteeringParameters:
        """Return the parameters of one turn: without an image there is nothing to contrast."""
        if request.turn.images:
            return self.parameters
        return self.parameters.model_copy(update={"alpha": 0.0})

    def _record(self, request: TurnRequest) -> DecodingRecord:
        parameters = self._parameters_of(request).model_dump()
        return DecodingRecord(strategy=self.strategy.id, seed=self._seed(request), **parameters)

    # -- answering ----------------------------------------------------------------------------

    def _answer(
        self, cases: list[_Case], indices: list[int], shared: SharedPrefill | None
    ) -> Iterator[tuple[int, str | TurnResult]]:
        """Decode the open cases as one batch."""
        if not indices:
            return
        jobs = [self._steered_job(cases[i]) for i in indices]
        branch, counts = self._start(cases, indices, jobs, shared)
        for delta in answer(self.model, branch, jobs):
            case = cases[indices[delta.index]]
            case.text += delta.text
            if delta.text:
                yield indices[delta.index], delta.text
            if delta.finish is not None:
                yield indices[delta.index], _result(case, delta, counts[delta.index])

    def _steered_job(self, case: _Case) -> Job:
        job = replace(_job(case), strategy=case.strategy)
        if case.refuse:
            return replace(job, constraint=case.request.refusal)
        if case.strategy is not None and case.strategy.views == 2:
            return replace(job, second=self._second(case))
        return job

    def _start(
        self,
        cases: list[_Case],
        indices: list[int],
        jobs: list[Job],
        shared: SharedPrefill | None,
    ) -> tuple[Branch, list[int]]:
        """Return the branch with the jobs' prompts, continued from the shared prefix if it can."""
        edited = any(cases[i].turn is not cases[i].request.turn for i in indices)
        paired = [i for i, job in zip(indices, jobs, strict=True) if contrasted(job)]
        if shared is None or edited or (paired and not shared.paired):
            return prefill(self.model, jobs)
        branch = shared.answer_branch(indices, paired)
        return branch, [shared.prompt_tokens(i) for i in indices]

    # -- handing out --------------------------------------------------------------------------

    def _is_railed(self, case: _Case) -> bool:
        """Return whether the finished text has to be judged before it may leave."""
        verdict = case.verdict
        return verdict is not None and self.policy.output_rail.applies(verdict.label)

    def _released(self, case: _Case, result: TurnResult) -> Iterator[TurnEvent]:
        """Judge a finished answer where the policy wants it, and hand it out or withhold it."""
        if not self._is_railed(case):
            yield result
            return
        request = JudgeRequest(
            "output", case.request.turn, answer=result.text, deadline=case.request.deadline
        )
        judgement = self.examiner.judge_all([request])[0]
        decision = self.examiner.decide(judgement)
        if decision.label == "unsafe":
            decision = replace(decision, action=self.policy.output_rail.action)
        elif decision.action == "guide":
            decision = replace(decision, action="block" if decision.degraded else "pass")
        verdict = self.examiner.verdict(request, decision, judgement, run_id=case.request.run_id)
        case.request.on_verdict(verdict)
        yield verdict
        result = replace(result, verdicts=(*result.verdicts, verdict))
        if verdict.action in ("block", "review"):
            yield self._withheld(case, verdict, result)
            return
        if result.text:
            yield result.text
        yield result

    def _stop(self, case: _Case) -> TurnResult | GuardError:
        """Return what a stopped turn is answered with."""
        verdict = case.verdict
        assert verdict is not None
        nothing = TurnResult("", "content_filter", 0, (), (verdict,))
        return self._withheld(case, verdict, nothing)

    def _withheld(
        self, case: _Case, verdict: Verdict, result: TurnResult
    ) -> TurnResult | TurnBlocked:
        if self.policy.on_block == "raise" or case.request.constraint is not None:
            return TurnBlocked(verdict)
        text = self.policy.review_text if verdict.action == "review" else self.policy.refusal_text
        return replace(result, text=text, finish="content_filter")


def _is_steerable(request: TurnRequest) -> bool:
    return bool(request.turn.images) and request.constraint is None


def _job(case: _Case) -> Job:
    """Return the plain job of a case."""
    request = case.request
    return Job(
        case.turn or request.turn,
        request.sampling,
        request.tools,
        constraint=request.constraint,
        deadline=request.deadline,
        cancelled=request.cancelled,
    )


def _result(case: _Case, delta: Delta, prompt_tokens: int) -> TurnResult:
    steps = case.strategy.steps_traced(delta.tokens) if isinstance(case.strategy, Traced) else ()
    return TurnResult(
        text=case.text,
        finish=str(delta.finish),
        prompt_tokens=prompt_tokens,
        tokens=delta.tokens,
        verdicts=(case.verdict,) if case.verdict else (),
        trace=steps,
        refused=case.refuse,
    )
