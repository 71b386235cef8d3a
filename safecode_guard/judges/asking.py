"""How a judge asks an engine: in sessions of its own, one for all turns that fit together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing

from safecode_guard.errors import TurnTimeout
from safecode_guard.models.protocol import Engine, Job, LabelScores, Question, Sampling, Session
from safecode_guard.turns.turn import Turn


def ask(
    engine: Engine, turns: Sequence[Turn], tokens: frozenset[int], *, with_state: bool = False
) -> list[LabelScores]:
    """Return the scores of some tokens after each conversation, in order.

    Raises:
        ModelError: If the model cannot be asked.
    """
    scores: dict[int, LabelScores] = {}
    for session, indices in _sessions(engine, turns, Sampling()):
        questions = [Question(row, turns[i], tokens, with_state) for row, i in enumerate(indices)]
        scores |= zip(indices, session.ask(questions), strict=True)
    return [scores[i] for i in range(len(turns))]


def write(
    engine: Engine,
    turns: Sequence[Turn],
    sampling: Sampling,
    *,
    deadlines: Sequence[float | None],
) -> list[str]:
    """Return the answer to each conversation, in order; empty where time ran out.

    Raises:
        ModelError: If the model cannot be asked.
    """
    texts = [""] * len(turns)
    for session, indices in _sessions(engine, turns, sampling):
        jobs = [
            Job(row, turns[i], sampling, deadline=deadlines[i]) for row, i in enumerate(indices)
        ]
        for i, text in zip(indices, _answers(session, jobs), strict=True):
            texts[i] = text
    return texts


def _sessions(
    engine: Engine, turns: Sequence[Turn], sampling: Sampling
) -> Iterator[tuple[Session, list[int]]]:
    """Yield sessions with the indices of their turns; each is closed before the next is opened."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, turn in enumerate(turns):
        groups[engine.batch_key(turn, sampling, ())].append(i)
    for indices in groups.values():
        with closing(engine.open([turns[i] for i in indices], sampling)) as session:
            yield session, indices


def _answers(session: Session, jobs: Sequence[Job]) -> list[str]:
    texts = [""] * len(jobs)
    late: set[int] = set()
    for delta in session.answer(jobs):
        texts[delta.index] += delta.text
        if isinstance(delta.error, TurnTimeout):
            late.add(delta.index)
        elif delta.error is not None:
            raise delta.error
    return ["" if row in late else text for row, text in enumerate(texts)]
