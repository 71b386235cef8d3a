"""Turns, and what serves them, for tests of the pipeline."""

from __future__ import annotations

from typing import Any

from safecode_guard.models.protocol import Engine, Sampling
from safecode_guard.pipeline.admission import Admission
from safecode_guard.pipeline.examiner import Examiner
from safecode_guard.pipeline.factory import make_examiner, make_turns
from safecode_guard.pipeline.guarded import GuardedTurns
from safecode_guard.pipeline.requests import Run, TurnRequest
from safecode_guard.policy import Policy
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.turn import TextPart, Turn, TurnMessage
from safecode_guard.verdict import Verdict
from tests.messages import QUERY, ask

HELP = "Run along the edge."
REFUSAL = "I can't help with that."
GREEDY = Sampling(do_sample=False, max_tokens=64)
BLOCKING = {"actions": {"unsafe": "block"}}


def turn(text: str = QUERY, *colours: str) -> Turn:
    """A turn about a picture, red unless said otherwise."""
    return read_turn(ask(text, *colours))


def words(text: str = "Hello") -> Turn:
    """A turn without a picture."""
    return Turn((TurnMessage("user", (TextPart(text),)),))


def request(text: str | Turn = QUERY, **fields: Any) -> TurnRequest:
    """A greedy request."""
    asked = turn(text) if isinstance(text, str) else text
    return TurnRequest(asked, **({"sampling": GREEDY} | fields))


def heard(verdicts: list[Verdict], run_id: str = "run-1") -> Run:
    """A run that keeps what it is told."""
    return Run(run_id, verdicts.append)


def examiner(judge: Any = 0.1, policy: Any = None, **options: Any) -> Examiner:
    """An examiner with a scripted judge."""
    judge = judge if hasattr(judge, "judge") else ScriptedJudge(judge)
    return make_examiner(Policy.load(policy or {"name": "t"}), judge=judge, **options)


def served(
    judge: Any = 0.1,
    engine: Engine | None = None,
    policy: Any = None,
    *,
    strategy: Any = None,
    admission: Admission | None = None,
    **options: Any,
) -> GuardedTurns:
    """What serves turns on a scripted engine."""
    return make_turns(
        engine or ScriptedVLM(HELP),
        examiner(judge, policy, **options),
        strategy=strategy,
        admission=admission,
    )


def kinds(events: Any) -> list[str]:
    """The kinds of what happened, runs of text as one."""
    names = [type(event).__name__ for _, event in events]
    return [name for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
