"""A judge that reads its label from a vision-language model's next-token scores."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from safecode_guard.errors import JudgeError, ModelError
from safecode_guard.judges.asking import ask, write
from safecode_guard.judges.deadlines import has_time, remaining
from safecode_guard.judges.labels import LabelTokens, label_tokens, verdict_probability
from safecode_guard.judges.prompts import JudgePrompt, prompt_for
from safecode_guard.judges.protocol import BaseJudge, JudgeAbilities, JudgeRequest, OpenPrompt
from safecode_guard.models.protocol import Engine, LabelScores, Question, Sampling, Vocabulary
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import Judgement

_WRITING: Final = Sampling(do_sample=False, max_tokens=48)
_DEFAULT_MASS: Final = 0.1


class LabelLogitsJudge(BaseJudge):
    """Asks a model for one word and reads P(unsafe) off the next token's probabilities.

    Nothing is generated for the verdict, so there is nothing to parse. If the model gives less
    than ``min_label_mass`` of its probability to the labels, it was not about to answer: the
    label is ``undecided`` and the status ``low_mass``, with ``p_unsafe`` still reported.

    Example:
        >>> judge = LabelLogitsJudge(engine)                         # doctest: +SKIP
        >>> judge.judge(JudgeRequest.of_turn(turn)).p_unsafe         # doctest: +SKIP
        0.93
    """

    def __init__(
        self,
        engine: Engine,
        *,
        prompt: JudgePrompt | None = None,
        min_label_mass: float = _DEFAULT_MASS,
        caption: bool = False,
        rationale: bool = False,
        id: str | None = None,
    ) -> None:
        """Make the judge; the model is not asked anything yet.

        Args:
            engine: The model that judges. A request that comes with a prompt open on the same
                engine is asked there.
            prompt: Its questions; the family's own, or the general ones.
            min_label_mass: Least probability of a label for the answer to count.
            caption: Also write one sentence on the scene.
            rationale: Also write one sentence on why.
            id: Name in verdicts and cache keys.

        Raises:
            JudgeError: If the engine keeps the scores of labels to itself, or its vocabulary
                cannot tell them apart.
        """
        self.engine = engine
        self.prompt = prompt or prompt_for(engine.family)
        self.min_label_mass = min_label_mass
        self.caption = caption
        self.rationale = rationale
        self.id = id or f"label-logits:{engine.id}"
        self.prompt_version = version_of(
            self.prompt, min_label_mass=min_label_mass, caption=caption, rationale=rationale
        )
        # In this process a forward pass cannot be interrupted; a server's answer can be given up.
        able = engine.abilities
        self.abilities = JudgeAbilities(honours_deadline=able.logits, batches=able.batches)
        self._labels: LabelTokens = label_tokens(_scored_vocabulary(engine))

    def question(self, request: JudgeRequest) -> Turn:
        """Return the conversation whose next token is the label."""
        return request.scene.turn.ask(self.prompt.text(request))

    def judge(self, request: JudgeRequest) -> Judgement:
        """Judge one request.

        Raises:
            JudgeTimeout: If the request's deadline has passed before the model is asked.
            JudgeError: If the model cannot be asked, or its scores are no log-probabilities.
        """
        return self.judge_many([request])[0]

    def judge_many(self, requests: list[JudgeRequest]) -> list[Judgement]:
        """Judge requests in one batch, one row each; raises as `judge` does."""
        started = time.monotonic()
        for request in requests:
            remaining(request.deadline)
        try:
            scores = self._scores(requests)
            captions = self._captions(requests)
            rationales = self._rationales(requests)
        except ModelError as error:
            raise JudgeError("The judging model could not be asked.", hint=error.hint) from error
        elapsed = (time.monotonic() - started) * 1000
        return [
            self._judgement(row, caption, rationale, elapsed)
            for row, caption, rationale in zip(scores, captions, rationales, strict=True)
        ]

    def _scores(self, requests: Sequence[JudgeRequest]) -> list[LabelScores]:
        """Return the labels' scores, asked on a request's open prompt where it is of use."""
        turns = [self.question(request) for request in requests]
        scores = self._on_open_prompts(requests, turns)
        alone = [i for i in range(len(requests)) if i not in scores]
        found = ask(self.engine, [turns[i] for i in alone], self._labels.all)
        scores |= zip(alone, found, strict=True)
        return [scores[i] for i in range(len(requests))]

    def _on_open_prompts(
        self, requests: Sequence[JudgeRequest], turns: Sequence[Turn]
    ) -> dict[int, LabelScores]:
        """Ask those of a session together; returns their scores by the request's place."""
        sessions: dict[int, list[tuple[int, OpenPrompt]]] = defaultdict(list)
        for i, request in enumerate(requests):
            if request.prompt is not None and request.prompt.engine is self.engine:
                sessions[id(request.prompt.session)].append((i, request.prompt))
        scores: dict[int, LabelScores] = {}
        for rows in sessions.values():
            questions = [Question(prompt.index, turns[i], self._labels.all) for i, prompt in rows]
            found = rows[0][1].session.ask(questions)
            scores |= zip((i for i, _ in rows), found, strict=True)
        return scores

    def _captions(self, requests: Sequence[JudgeRequest]) -> list[str | None]:
        if not self.caption:
            return [None] * len(requests)
        caption = self.prompt.caption
        return self._write(requests, [caption if r.scene.images else None for r in requests])

    def _rationales(self, requests: Sequence[JudgeRequest]) -> list[str | None]:
        if not self.rationale:
            return [None] * len(requests)
        return self._write(requests, [self.prompt.rationale_text(r) for r in requests])

    def _write(
        self, requests: Sequence[JudgeRequest], questions: Sequence[str | None]
    ) -> list[str | None]:
        """Return a sentence of the model's per request; none where time ran out after the label."""
        turns = {
            i: request.scene.turn.ask(question)
            for i, (request, question) in enumerate(zip(requests, questions, strict=True))
            if question is not None and has_time(request.deadline)
        }
        deadlines = [requests[i].deadline for i in turns]
        texts = write(self.engine, list(turns.values()), _WRITING, deadlines=deadlines)
        written = dict(zip(turns, texts, strict=True))
        return [written.get(i, "").strip() or None for i in range(len(requests))]

    def _judgement(
        self, scores: LabelScores, caption: str | None, rationale: str | None, latency_ms: float
    ) -> Judgement:
        p_unsafe, mass = verdict_probability(scores, self._labels)
        enough = mass >= self.min_label_mass
        return Judgement(
            judge_id=self.id,
            prompt_version=self.prompt_version,
            p_unsafe=p_unsafe,
            label=None if enough else "undecided",
            label_mass=mass,
            caption=caption,
            rationale=rationale,
            parse_status="logits" if enough else "low_mass",
            latency_ms=latency_ms,
        )


def version_of(
    prompt: JudgePrompt, *, min_label_mass: float, caption: bool, rationale: bool
) -> str:
    """Name everything that changes what is judged or written, for the cache key."""
    parts = [prompt.version]
    parts += [f"mass={min_label_mass:g}"] if min_label_mass != _DEFAULT_MASS else []
    parts += ["caption"] if caption else []
    parts += ["rationale"] if rationale else []
    return "+".join(parts)


def _scored_vocabulary(engine: Engine) -> Vocabulary:
    vocabulary = engine.vocabulary
    if vocabulary is None or not engine.abilities.label_scores:
        raise JudgeError(
            f"The model {engine.id!r} gives no scores of single tokens, so no label can be read.",
            hint="Use a judge that writes its verdict, such as ChatJudge.",
        )
    return vocabulary
