"""An engine as a server would be: no logits get out, and steering is done from its record."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from safecode_guard.models.families import Family
from safecode_guard.models.protocol import (
    Abilities,
    Delta,
    Job,
    LabelScores,
    LogitsStrategy,
    Question,
    Sampling,
    Step,
    Tool,
    Vocabulary,
)
from safecode_guard.steering.restore import RESTORABLE, restore
from safecode_guard.testing.model import EOS, ScriptedVLM
from safecode_guard.turns.turn import Turn


class ScriptedServer:
    """A `ScriptedVLM` behind a wall: label scores for the labels asked, records for strategies.

    What passes the wall is JSON and pictures, so a strategy object that leaves something out of
    its record steers differently here than in process.

    Example:
        >>> server = ScriptedServer(ScriptedVLM("Run.", p_unsafe=0.9))
        >>> server.abilities.logits, sorted(server.abilities.records)
        (False, ['safecode'])
    """

    def __init__(self, model: ScriptedVLM) -> None:
        """Take the model behind the wall."""
        self.model = model
        self.requests: list[dict[str, Any]] = []
        """Every request so far, as it passed the wall."""

    @property
    def id(self) -> str:
        """The model's, as a server has it."""
        return f"server:{self.model.id}"

    @property
    def family(self) -> Family:
        """The model's."""
        return self.model.family

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's: clients know the tokenizer."""
        return self.model.vocabulary

    @property
    def abilities(self) -> Abilities:
        """Scores and records; no logits, states or grammars."""
        return Abilities(records=RESTORABLE, label_scores=True)

    def open(
        self, turns: Sequence[Turn], sampling: Sampling, *, tools: Sequence[Tool] = ()
    ) -> ScriptedServerSession:
        """Return a session: requests to the server."""
        return ScriptedServerSession(self)

    def batch_key(self, turn: Turn, sampling: Sampling, tools: Sequence[Tool]) -> str:
        """Return one key for all: a server batches by itself."""
        return ""

    def working_size(self, image: Image.Image) -> tuple[int, int]:
        """Return the picture's own size: nothing is resized."""
        return image.size

    def logits(self, turn: Turn, written: Sequence[int]) -> Tensor:
        """Return the next-token logits [n]; they stay behind the wall."""
        (ids,) = self.model.encode([turn]).ids
        return self.model.next_logits([*ids, *written], turn.pixels)


class ScriptedServerSession:
    """Requests to a `ScriptedServer`, one after another."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._closed = False

    def ask(self, questions: Sequence[Question]) -> list[LabelScores]:
        """Return the log-probabilities of the asked tokens and of no other."""
        answers: list[LabelScores] = []
        for question in questions:
            self._server.requests.append({"kind": "ask", "tokens": sorted(question.tokens)})
            log_p = self._server.logits(question.turn, []).log_softmax(-1)
            answers.append({token: float(log_p[token]) for token in question.tokens})
        return answers

    def answer(self, jobs: Sequence[Job]) -> Generator[Delta]:
        """Answer one job after another, greedily."""
        for job in jobs:
            try:
                yield from self._answered(job)
            except Exception as error:  # a record that cannot be restored, a broken script
                yield Delta(job.index, error=error)

    def close(self) -> None:
        """Answer nothing any more."""
        self._closed = True

    def _answered(self, job: Job) -> Generator[Delta]:
        sent = json.loads(json.dumps(job.record))
        self._server.requests.append({"kind": "answer", "record": sent})
        second = job.strategy.second if job.strategy is not None else None
        strategy = self._restored(sent, second)
        vocabulary, written = self._server.vocabulary, list[int]()
        while not self._closed and len(written) < job.sampling.max_tokens:
            token = self._next(job.turn, second, strategy, written)
            written.append(token)
            if token == EOS:
                break
            yield Delta(job.index, vocabulary.decode([token]))
        finish = "stop" if written[-1:] == [EOS] else "length"
        (prompt,) = self._server.model.encode([job.turn]).ids
        yield Delta(job.index, "", finish, tuple(written), len(prompt))

    def _restored(self, record: Any, second: Turn | None) -> LogitsStrategy | None:
        if record is None or not record["steps"]:
            return None
        return restore(
            record["strategy"],
            record["parameters"],
            vocabulary=self._server.vocabulary,
            second=second,
        )

    def _next(
        self,
        turn: Turn,
        second: Turn | None,
        strategy: LogitsStrategy | None,
        written: Sequence[int],
    ) -> int:
        """Choose the next token the obvious way: every view anew."""
        logits = self._server.logits(turn, written)
        if strategy is None or strategy.done(written):
            return int(logits.argmax())
        views = [logits] + ([self._server.logits(second, written)] if second else [])
        step = Step(
            index=len(written),
            logits=torch.stack(views),
            ids=torch.arange(logits.shape[-1]),
            so_far=torch.tensor(written, dtype=torch.long),
        )
        return int(strategy.adjust(step).argmax())
