"""From a finding to how the answer is steered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from safecode_guard.errors import LogitsUnavailable
from safecode_guard.models.protocol import Engine, Job, Needs, Sampling
from safecode_guard.pipeline.case import Case
from safecode_guard.pipeline.rules import certainty_of
from safecode_guard.steering.protocol import Probed, SteeringContext, Strategy, TurnPlan
from safecode_guard.steering.trace import Traced
from safecode_guard.turns.turn import Turn
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
            probe=self.probe,
            insistence=insistence,
        )

    def probe(
        self, turns: Sequence[Turn], *, max_tokens: int = 32, hidden_layer: int | None = None
    ) -> list[Probed]:
        """Ask the engine, greedily and unguarded, on behalf of the strategy; see `Probe`."""
        sampling = Sampling(do_sample=False, max_tokens=max_tokens)
        return [self._probed(turn, sampling, hidden_layer) for turn in turns]

    def _probed(self, turn: Turn, sampling: Sampling, hidden_layer: int | None) -> Probed:
        job = Job(0, turn, sampling, needs=Needs(hidden_layer=hidden_layer))
        text = ""
        with closing(self.engine.open([turn], sampling)) as session:
            for delta in session.answer([job]):
                if delta.error is not None:
                    raise delta.error
                text += delta.text
        return Probed(text, delta.tokens, delta.hidden)
