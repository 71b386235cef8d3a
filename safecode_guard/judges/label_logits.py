"""A judge that reads its label from a vision-language model's next-token logits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from torch import Tensor

from safecode_guard.errors import JudgeError, ModelError
from safecode_guard.judges.deadlines import has_time, remaining
from safecode_guard.judges.labels import LabelTokens, label_tokens, verdict_probability
from safecode_guard.judges.prompts import JudgePrompt, prompt_for
from safecode_guard.judges.protocol import JudgeRequest
from safecode_guard.models.protocol import Sampling, VisionLanguageModel
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import Judgement

_WRITING: Final = Sampling(do_sample=False, max_tokens=48)
_DEFAULT_MASS: Final = 0.1


class LabelLogitsJudge:
    """Asks a model for one word and reads P(unsafe) off the next-token logits.

    Nothing is generated for the verdict, so there is nothing to parse. If the model gives less
    than ``min_label_mass`` of its probability to the labels, it was not about to answer: the
    label is ``undecided`` and the status ``low_mass``, with ``p_unsafe`` still reported.

    Example:
        >>> judge = LabelLogitsJudge(vlm)                        # doctest: +SKIP
        >>> judge.judge(JudgeRequest("input", turn)).p_unsafe    # doctest: +SKIP
        0.93
    """

    gives_categories = False
    honours_deadline = True

    def __init__(
        self,
        vlm: VisionLanguageModel,
        *,
        prompt: JudgePrompt | None = None,
        min_label_mass: float = _DEFAULT_MASS,
        caption: bool = False,
        rationale: bool = False,
        id: str | None = None,
        prompt_version: str | None = None,
    ) -> None:
        """Make the judge; the model is not asked anything yet.

        Args:
            vlm: The model that judges; ``judge.model`` tells whose prefixes it can use.
            prompt: Its questions; the family's own, or the general ones.
            min_label_mass: Least probability of a label for the answer to count.
            caption: Also write one sentence on the scene.
            rationale: Also write one sentence on why.
            id: Name in verdicts and cache keys.
            prompt_version: Overrides the version made of the prompt and these options.
        """
        self.model = vlm
        self.prompt = prompt or prompt_for(vlm.family)
        self.min_label_mass = min_label_mass
        self.caption = caption
        self.rationale = rationale
        self.id = id or f"label-logits:{vlm.id}"
        self.prompt_version = prompt_version or _version(
            self.prompt.version, min_label_mass, caption=caption, rationale=rationale
        )

    def question(self, request: JudgeRequest) -> Turn:
        """Return the conversation whose next token is the label."""
        return request.turn.ask(self.prompt.text(request))

    def judge(self, request: JudgeRequest) -> Judgement:
        """Judge one request.

        Raises:
            JudgeTimeout: If the request's deadline has passed before the model is asked.
            JudgeError: If the model cannot be asked, or its logits are no numbers.
        """
        return self.judge_many([request])[0]

    async def ajudge(self, request: JudgeRequest) -> Judgement:
        """Judge one request in a worker thread; raises as `judge` does."""
        return await asyncio.to_thread(self.judge, request)

    def judge_many(self, requests: list[JudgeRequest]) -> list[Judgement]:
        """Judge requests in one batch, one row each; raises as `judge` does."""
        started = time.monotonic()
        for request in requests:
            remaining(request.deadline)
        try:
            readings = self._readings(requests)
            captions = self._captions(requests)
            rationales = self._rationales(requests)
        except ModelError as error:
            raise JudgeError("The judging model could not be asked.", hint=error.hint) from error
        elapsed = (time.monotonic() - started) * 1000
        return [
            self._judgement(reading, caption, rationale, elapsed)
            for reading, caption, rationale in zip(readings, captions, rationales, strict=True)
        ]

    @cached_property
    def _labels(self) -> LabelTokens:
        return label_tokens(self.model.vocabulary)

    def _readings(self, requests: Sequence[JudgeRequest]) -> list[tuple[float, float]]:
        alone = [i for i, request in enumerate(requests) if request.prefix is None]
        readings: dict[int, tuple[float, float]] = {}
        if alone:
            turns = [self.question(requests[i]) for i in alone]
            branch = self.model.prefill(self.model.encode(turns), Sampling())
            for row, i in enumerate(alone):
                readings[i] = self._read(branch.logits[row], branch.candidates)
        for i, request in enumerate(requests):
            if request.prefix is not None:
                logits = request.prefix.logits()
                readings[i] = self._read(logits, _all_candidates(logits))
        return [readings[i] for i in range(len(requests))]

    def _read(self, logits: Tensor, candidates: Tensor) -> tuple[float, float]:
        return verdict_probability(logits, candidates, self.model.vocabulary, labels=self._labels)

    def _captions(self, requests: Sequence[JudgeRequest]) -> list[str | None]:
        if not self.caption:
            return [None] * len(requests)
        caption = self.prompt.caption
        return self._write(requests, [caption if r.turn.images else None for r in requests])

    def _rationales(self, requests: Sequence[JudgeRequest]) -> list[str | None]:
        if not self.rationale:
            return [None] * len(requests)
        return self._write(requests, [self.prompt.rationale_text(r) for r in requests])

    def _write(
        self, requests: Sequence[JudgeRequest], questions: Sequence[str | None]
    ) -> list[str | None]:
        """Return a sentence of the model's per request; none where time ran out after the label."""
        turns = {
            i: request.turn.ask(question)
            for i, (request, question) in enumerate(zip(requests, questions, strict=True))
            if question is not None and has_time(request.deadline)
        }
        texts = self.model.generate(list(turns.values()), _WRITING) if turns else []
        written = dict(zip(turns, texts, strict=True))
        return [written.get(i, "").strip() or None for i in range(len(requests))]

    def _judgement(
        self,
        reading: tuple[float, float],
        caption: str | None,
        rationale: str | None,
        latency_ms: float,
    ) -> Judgement:
        p_unsafe, mass = reading
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


def _all_candidates(logits: Tensor) -> Tensor:
    import torch

    return torch.arange(logits.shape[-1])


def _version(prompt: str, mass: float, *, caption: bool, rationale: bool) -> str:
    """Name everything that changes what is judged or written, for the cache key."""
    parts = [prompt]
    parts += [f"mass={mass:g}"] if mass != _DEFAULT_MASS else []
    parts += ["caption"] if caption else []
    parts += ["rationale"] if rationale else []
    return "+".join(parts)
