"""From a finding to how the answer is steered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from safecode_guard.errors import LogitsUnavailable
from safecode_guard.models.probing import probe
from safecode_guard.models.protocol import Engine
from safecode_guard.pipeline.case import Case
from safecode_guard.pipeline.rules import certainty_of
from safecode_guard.steering.protocol import SteeringContext, Strategy, TurnPlan
from safecode_guard.steering.trace import Traced
from safecode_guard.verdict import DecodingRecord


@dataclass(frozen=True)
class Steering:
    """A strategy on the engine that it steers."""

    engine: Engine
    strategy: Strategy
    seed: int
    """Where the caller gives none."""

    def prepare(self, case: Case, *, insistence: float = 1.0) -> DecodingRecord | None:
        """Set how a case is steered, and return the record of it; None if it is left alone.

        Args:
            case: The turn.
            insistence: How many times harder than usual to push.

        Raises:
            Exception: Whatever the strategy raises; such a turn must not be answered.
        """
        context = self._context(case, insistence)
        plan = self.strategy.prepare(context)
        if plan is None:
            return None
        steps = 0
        if isinstance(plan, TurnPlan):
            case.turn = plan.edit(case.request.turn)
        else:
            steps = plan.steps
            case.strategy, case.needs = plan, self.strategy.needs
            if case.request.trace and self.engine.abilities.logits:
                case.strategy = Traced(plan, context.vocabulary)
        record = DecodingRecord(
            strategy=self.strategy.id,
            seed=context.seed,
            steps=steps,
            parameters=dict(self.strategy.record(context)),
        )
        case.record = record.model_dump(mode="json")
        return record

    def _context(self, case: Case, insistence: float) -> SteeringContext:
        finding, request, vocabulary = case.finding, case.request, self.engine.vocabulary
        if vocabulary is None or finding is None or finding.judgement is None:
            raise LogitsUnavailable("There is nothing to steer by.", hint="Use mode 'judge_only'.")
        decision, seed = finding.decision, request.sampling.seed
        return SteeringContext(
            label=decision.label,
            direction=decision.direction,
            certainty=certainty_of(finding.judgement, decision.label),
            judgement=finding.judgement,
            turn=request.turn,
            vocabulary=vocabulary,
            family=self.engine.family,
            seed=self.seed if seed is None else seed,
            working_size=self.engine.working_size,
            probe=partial(probe, self.engine),
            insistence=insistence,
        )
