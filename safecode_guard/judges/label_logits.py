"""A judge that reads its label from a vision-language model's next-token scores."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from safecode_guard.errors import JudgeError, ModelError
from safecode_guard.judges.asking import ask, write
from safecode_guard.judges.deadlines import has_time, remaining
from safecode_guard.judges.labels import (
    LabelTokens,
    label_tokens,
    log_odds,
    verdict_probability,
)
from safecode_guard.judges.prior import NOTHING, contentless
from safecode_guard.judges.prompts import JudgePrompt, prompt_for
from safecode_guard.judges.protocol import BaseJudge, JudgeAbilities, JudgeRequest, OpenPrompt
from safecode_guard.judges.scope import Scope
from safecode_guard.models.protocol import (
    Engine,
    LabelScores,
    Question,
    Sampling,
    StatedScores,
    Vocabulary,
)
from safecode_guard.taxonomy import Stage
from safecode_guard.turns.scene import Scene
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
        debias: bool = False,
        trim_borders: bool = True,
        scope: Scope | None = None,
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
            debias: Take off what the model says of nothing, asked once at each stage.
            trim_borders: Judge what stands inside plain borders. A picture that has them is then
                not the one in an open prompt, and costs a prompt of its own.
            scope: Of its calibration: every judgement then says how unlike it the scene is. Use it
                within `CalibratedJudge`, whose id covers it.
            id: Name in verdicts and cache keys.

        Raises:
            JudgeError: If the engine keeps the scores of labels to itself, or its vocabulary
                cannot tell them apart; or if there is a scope and it gives no states.
        """
        if scope is not None:
            _require_states(engine)
        self.engine = engine
        self.prompt = prompt or prompt_for(engine.family)
        self.min_label_mass = min_label_mass
        self.caption = caption
        self.rationale = rationale
        self.debias = debias
        self.trim_borders = trim_borders
        self.scope = scope
        self.id = id or f"label-logits:{engine.id}"
        self.prompt_version = version_of(
            self.prompt,
            min_label_mass=min_label_mass,
            caption=caption,
            rationale=rationale,
            debias=debias,
            trim_borders=trim_borders,
        )
        self._priors: dict[Stage, float] = {}
        # In this process a forward pass cannot be interrupted; a server's answer can be given up.
        able = engine.abilities
        self.abilities = JudgeAbilities(honours_deadline=able.logits, batches=able.batches)
        self._labels: LabelTokens = label_tokens(_scored_vocabulary(engine))

    def question(self, request: JudgeRequest) -> Turn:
        """Return the conversation whose next token is the label."""
        return self._shown(request).turn.ask(self.prompt.text(request))

    def _shown(self, request: JudgeRequest) -> Scene:
        return request.scene.trimmed if self.trim_borders else request.scene

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
            priors = [self._prior(request.stage) for request in requests]
            scores = self._scores(requests)
            captions = self._captions(requests)
            rationales = self._rationales(requests)
        except ModelError as error:
            raise JudgeError("The judging model could not be asked.", hint=error.hint) from error
        elapsed = (time.monotonic() - started) * 1000
        return [
            self._judgement(row, caption, rationale, elapsed, prior, scoped=self._scoped(request))
            for request, row, caption, rationale, prior in zip(
                requests, scores, captions, rationales, priors, strict=True
            )
        ]

    def states(self, requests: Sequence[JudgeRequest]) -> list[Sequence[float]]:
        """Return the state that each request's label is read from, [requests][d].

        Raises:
            JudgeError: If the engine gives none, or cannot be asked.
        """
        _require_states(self.engine)
        turns = [self.question(request) for request in requests]
        try:
            found = ask(self.engine, turns, self._labels.all, with_state=True)
        except ModelError as error:
            raise JudgeError("The judging model could not be asked.", hint=error.hint) from error
        return [_state(scores) for scores in found]

    def _prior(self, stage: Stage) -> float:
        """Return the log-odds of danger where there is nothing to judge, 0 without ``debias``.

        Two threads that ask for the first time at once both ask, and find the same.
        """
        if not self.debias:
            return 0.0
        if stage not in self._priors:
            turns = [self.question(request) for request in contentless(stage)]
            found = ask(self.engine, turns, self._labels.all)
            odds = [log_odds(verdict_probability(one, self._labels)[0]) for one in found]
            self._priors[stage] = sum(odds) / len(odds)
        return self._priors[stage]

    def _scores(self, requests: Sequence[JudgeRequest]) -> list[LabelScores]:
        """Return the labels' scores, asked on a request's open prompt where it is of use."""
        turns = [self.question(request) for request in requests]
        scores = self._on_open_prompts(requests, turns)
        alone = [i for i in range(len(requests)) if i not in scores]
        stated = any(self._scoped(requests[i]) for i in alone)
        found = ask(self.engine, [turns[i] for i in alone], self._labels.all, with_state=stated)
        scores |= zip(alone, found, strict=True)
        return [scores[i] for i in range(len(requests))]

    def _on_open_prompts(
        self, requests: Sequence[JudgeRequest], turns: Sequence[Turn]
    ) -> dict[int, LabelScores]:
        """Ask those of a session together; returns their scores by the request's place."""
        sessions: dict[int, list[tuple[int, OpenPrompt]]] = defaultdict(list)
        for i, request in enumerate(requests):
            prompt, same = request.prompt, self._shown(request) is request.scene
            if same and prompt is not None and prompt.engine is self.engine:
                sessions[id(prompt.session)].append((i, prompt))
        scores: dict[int, LabelScores] = {}
        for rows in sessions.values():
            questions = [
                Question(prompt.index, turns[i], self._labels.all, self._scoped(requests[i]))
                for i, prompt in rows
            ]
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
            i: self._shown(request).turn.ask(question)
            for i, (request, question) in enumerate(zip(requests, questions, strict=True))
            if question is not None and has_time(request.deadline)
        }
        deadlines = [requests[i].deadline for i in turns]
        texts = write(self.engine, list(turns.values()), _WRITING, deadlines=deadlines)
        written = dict(zip(turns, texts, strict=True))
        return [written.get(i, "").strip() or None for i in range(len(requests))]

    def _judgement(
        self,
        scores: LabelScores,
        caption: str | None,
        rationale: str | None,
        latency_ms: float,
        prior: float,
        *,
        scoped: bool,
    ) -> Judgement:
        p_unsafe, mass = verdict_probability(scores, self._labels, bias=prior)
        enough = mass >= self.min_label_mass
        return Judgement(
            judge_id=self.id,
            prompt_version=self.prompt_version,
            p_unsafe=p_unsafe,
            label=None if enough else "undecided",
            label_mass=mass,
            unlikeness=self._unlikeness(scores) if scoped else None,
            caption=caption,
            rationale=rationale,
            parse_status="logits" if enough else "low_mass",
            latency_ms=latency_ms,
        )

    def _scoped(self, request: JudgeRequest) -> bool:
        """Return whether the scope has anything to say of a request."""
        return self.scope is not None and self.scope.stage == request.stage

    def _unlikeness(self, scores: LabelScores) -> float | None:
        return None if self.scope is None else self.scope.unlikeness([_state(scores)])[0]


def version_of(
    prompt: JudgePrompt,
    *,
    min_label_mass: float,
    caption: bool,
    rationale: bool,
    debias: bool = False,
    trim_borders: bool = True,
) -> str:
    """Name everything that changes what is judged or written, for the cache key."""
    parts = [prompt.version]
    parts += [f"mass={min_label_mass:g}"] if min_label_mass != _DEFAULT_MASS else []
    parts += ["caption"] if caption else []
    parts += ["rationale"] if rationale else []
    parts += [f"debias={'|'.join(NOTHING)}"] if debias else []
    parts += [] if trim_borders else ["untrimmed"]
    return "+".join(parts)


def _scored_vocabulary(engine: Engine) -> Vocabulary:
    vocabulary = engine.vocabulary
    if vocabulary is None or not engine.abilities.label_scores:
        raise JudgeError(
            f"The model {engine.id!r} gives no scores of single tokens, so no label can be read.",
            hint="Use a judge that writes its verdict, such as ChatJudge.",
        )
    return vocabulary


def _require_states(engine: Engine) -> None:
    if not engine.abilities.hidden_states:
        raise JudgeError(
            f"The model {engine.id!r} gives no states, so nothing tells how unlike a scene is.",
            hint="Calibrate it without --scope.",
        )


def _state(scores: LabelScores) -> Sequence[float]:
    if not isinstance(scores, StatedScores):
        raise JudgeError(
            "The model gave scores without the state that was asked for.",
            hint="An engine that says it has hidden states must give them.",
        )
    return scores.state
