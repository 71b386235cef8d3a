"""The same turn without a guard: nothing is judged, the engine answers."""

from __future__ import annotations

from functools import cache

from safecode_guard.judges.cache import JudgementCache
from safecode_guard.judges.protocol import BaseJudge
from safecode_guard.models.protocol import Engine
from safecode_guard.pipeline.admission import Admission
from safecode_guard.pipeline.examiner import Examiner, Finding, Subject
from safecode_guard.pipeline.guarded import GuardedTurns
from safecode_guard.pipeline.rules import Decision
from safecode_guard.pipeline.steering import Steering
from safecode_guard.policy import Policy
from safecode_guard.steering.plain import Plain


class _Nobody(BaseJudge):
    """Is never asked."""

    id = "nobody"


class _Unexamined(Examiner):
    """Lets everything pass unjudged."""

    def settled(self, subject: Subject) -> Finding:
        """Return that nothing has to be judged."""
        return Finding(Decision(None, "pass"))


@cache
def _examiner(prefix_cache_bytes: int) -> Examiner:
    policy = Policy(prefix_cache_bytes=prefix_cache_bytes)
    return _Unexamined(_Nobody(), policy, JudgementCache(0), "", steers=False)


def unguarded(engine: Engine, admission: Admission, *, prefix_cache_bytes: int = 0) -> GuardedTurns:
    """Return what serves an engine's turns as they are.

    Args:
        engine: What answers.
        admission: The queue before it.
        prefix_cache_bytes: Prefilled prompts that may be kept for later turns.
    """
    examiner, steering = _examiner(prefix_cache_bytes), Steering(engine, Plain(), seed=0)
    return GuardedTurns(engine, examiner, steering=steering, admission=admission)
