"""An engine without a model: scores and answers by table, every session kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from safecode_guard.models.families import Family
from safecode_guard.models.protocol import (
    Abilities,
    Delta,
    Job,
    LabelScores,
    Question,
    Sampling,
    Tool,
)
from safecode_guard.testing import ByteVocabulary
from safecode_guard.turns.turn import Turn

TABLE = ByteVocabulary()


class TableSession:
    """Notes what it is asked."""

    def __init__(self, engine: TableEngine, turns: Sequence[Turn]) -> None:
        self.turns = list(turns)
        self.questions: list[Question] = []
        self.asked = self.closed = 0
        self._engine = engine

    def ask(self, questions: Sequence[Question]) -> list[LabelScores]:
        self.asked += 1
        self.questions += questions
        if self._engine.error is not None:
            raise self._engine.error
        return [self._scores(question.tokens) for question in questions]

    def answer(self, jobs: Sequence[Job]) -> Iterator[Delta]:
        for job in reversed(jobs):
            answer = self._engine.answer(job.turn)
            if isinstance(answer, Exception):
                yield Delta(job.index, error=answer)
            else:
                yield Delta(job.index, answer[:3])
                yield Delta(job.index, answer[3:], finish="stop")

    def close(self) -> None:
        self.closed += 1

    def _scores(self, tokens: frozenset[int]) -> LabelScores:
        score = self._engine.score
        if score is None:
            return {}
        return dict.fromkeys(tokens, score)


class TableEngine:
    """Gives every token that is asked for the same score."""

    id = "table"
    family = Family("table")

    def __init__(
        self,
        *,
        score: float | None = -math.inf,
        answer: Callable[[Turn], str | Exception] = lambda turn: "Words.",
        key: Callable[[Turn], str] = lambda turn: "",
        error: Exception | None = None,
        vocabulary: ByteVocabulary | None = TABLE,
        logits: bool = False,
        label_scores: bool = True,
    ) -> None:
        self.score, self.answer, self.error = score, answer, error
        self.vocabulary = vocabulary
        self.abilities = Abilities(logits=logits, label_scores=label_scores)
        self.sessions: list[TableSession] = []
        self._key = key

    def open(
        self, turns: Sequence[Turn], sampling: Sampling, *, tools: Sequence[Tool] = ()
    ) -> TableSession:
        self.sessions.append(TableSession(self, turns))
        return self.sessions[-1]

    def batch_key(self, turn: Turn, sampling: Sampling, tools: Sequence[Tool]) -> str:
        return self._key(turn)

    def working_size(self, image: Image.Image) -> tuple[int, int]:
        return image.size
