"""The routes of `speed`: one turn answered in every way that is compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from PIL import Image

from safecode_guard.bench.speed.naive import naive_generate
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.engines.transformers.prefix import shared_length
from safecode_guard.errors import GuardError
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.prompts import GENERAL
from safecode_guard.judges.protocol import Judge, JudgeRequest
from safecode_guard.models.protocol import Sampling
from safecode_guard.pipeline.factory import make_examiner, make_turns
from safecode_guard.pipeline.guarded import GuardedTurns
from safecode_guard.pipeline.requests import TurnRequest, TurnResult
from safecode_guard.policy import Actions, Policy, SameModelJudgeConfig
from safecode_guard.steering.safecode.parameters import SteeringParameters, resolve
from safecode_guard.steering.safecode.views import second_views
from safecode_guard.testing import ScriptedJudge
from safecode_guard.turns.images import CheckedImage
from safecode_guard.turns.turn import ImagePart, TextPart, Turn, TurnMessage

ANSWER_TOKENS: Final = 64
BATCH: Final = 8
SUFFIX_TOKENS: Final = 64
MORE_TOKENS: Final = 100
_SAMPLING: Final = Sampling(do_sample=False, max_tokens=ANSWER_TOKENS)
_POLICY: Final = Policy(
    judge=SameModelJudgeConfig(min_label_mass=0, cache_size=0), actions=Actions(undecided="guide")
)
"""Steers every turn: random weights decide nothing, and a turn left alone costs less."""


class Routes:
    """The routes over one model; each call of one answers the same turn or batch."""

    def __init__(self, model: TransformersModel) -> None:
        self.model = model
        self.turns = [_turn(i) for i in range(BATCH)]
        self.turn = self.turns[0]
        self.parameters: SteeringParameters = resolve(_POLICY.decoding, model.family.steering)
        self._check_length()

    def named(self) -> dict[str, Callable[[], object]]:
        """Return what is timed, by name."""
        unjudged = self._turns(ScriptedJudge(0.9))
        judged = self._turns(_judge(self.model, self.turn, SUFFIX_TOKENS))
        longer = self._turns(_judge(self.model, self.turn, SUFFIX_TOKENS + MORE_TOKENS))
        batch = [TurnRequest(turn, _SAMPLING) for turn in self.turns]
        return {
            "plain": lambda: self.model.generate([self.turn], _SAMPLING),
            "guided": lambda: _answered(unjudged.run(batch[:1])),
            "turn": lambda: _answered(judged.run(batch[:1])),
            "longer_question": lambda: _answered(longer.run(batch[:1])),
            "naive": self._naive,
            "batch": lambda: _answered(unjudged.run(batch)),
            "prefill_16": self._prefill_16,
            "decode_8": self._decode_8,
        }

    def _turns(self, judge: Judge) -> GuardedTurns:
        return make_turns(self.model, make_examiner(_POLICY, judge=judge))

    def _second(self, turn: Turn) -> Turn:
        return second_views(
            turn,
            parameters=self.parameters,
            seed=0,
            working_size=self.model.working_size,
            keeps_image_size=self.model.family.keeps_image_size,
        )

    def _naive(self) -> object:
        return naive_generate(
            self.model,
            self.turn,
            self._second(self.turn),
            alpha=self.parameters.alpha,
            steps=self.parameters.guided_steps,
            sampling=_SAMPLING,
        )

    def _prefill_16(self) -> object:
        rows = [*self.turns, *map(self._second, self.turns)]
        return self.model.prefill(self.model.encode(rows), _SAMPLING)

    def _decode_8(self) -> object:
        """Decode 8 rows freely; their prefill is timed apart, so it is made once and forked."""
        if not hasattr(self, "_prefilled"):
            self._prefilled = self.model.prefill(self.model.encode(self.turns), _SAMPLING)
        branch = self._prefilled.fork()
        for _ in range(ANSWER_TOKENS - 1):
            branch.step(branch.logits.argmax(-1))
        return branch

    def _check_length(self) -> None:
        result = self._turns(ScriptedJudge(0.9)).run([TurnRequest(self.turn, _SAMPLING)])
        if (made := len(_answered(result)[0].tokens)) != ANSWER_TOKENS:
            raise GuardError(
                f"The model ends its answer after {made} tokens, not {ANSWER_TOKENS}.",
                hint="Unset its generation_config.eos_token_id for this measurement.",
            )


def _turn(seed: int) -> Turn:
    """Return a turn with a picture of its own and a request of about 50 tokens."""
    noise = np.random.default_rng(seed).integers(0, 255, (336, 336, 3), dtype=np.uint8)
    image = CheckedImage(Image.fromarray(noise), f"bench-{seed}", "image/png", 0, 0)
    query = "How do I run faster here? " * 5 + "Answer safe or unsafe. " * (seed % 3)
    return Turn((TurnMessage("user", (ImagePart(0), TextPart(query.strip()))),), (image,))


def _judge(model: TransformersModel, turn: Turn, tokens: int) -> LabelLogitsJudge:
    """Return a judge whose question adds so many tokens to the prefix it shares."""
    prompt, words = GENERAL, 0
    judge = LabelLogitsJudge(model, min_label_mass=0)
    while words <= 2 * tokens:
        words += 1
        text = " ".join(["Is it safe?"] * (words // 3) + ["safe"] * (words % 3))
        prompt = replace(GENERAL, id=f"bench-{words}", input=text, reply="")
        judge = LabelLogitsJudge(model, min_label_mass=0, prompt=prompt)
        (asked,) = model.encode([judge.question(JudgeRequest.of_turn(turn))]).ids
        (answer,) = model.encode([turn]).ids
        if len(asked) - shared_length(answer, asked) >= tokens:
            break
    return judge


def _answered(results: Any) -> list[TurnResult]:
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)
