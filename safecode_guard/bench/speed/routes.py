"""The routes of `speed`: turns answered in every way that is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from safecode_guard.policy import PREFIX_CACHE_BYTES, Actions, Policy, SameModelJudgeConfig
from safecode_guard.steering.safecode.parameters import SteeringParameters, resolve
from safecode_guard.steering.safecode.views import second_views
from safecode_guard.taxonomy import Action
from safecode_guard.testing import ScriptedJudge
from safecode_guard.turns.images import CheckedImage
from safecode_guard.turns.turn import ImagePart, Part, TextPart, Turn, TurnMessage

Call = Callable[[], object]

ANSWER_TOKENS: Final = 64
BATCH: Final = 8
SUFFIX_TOKENS: Final = 64
MORE_TOKENS: Final = 100
TURNS: Final = 10
"""Turns of a conversation."""
_SAMPLING: Final = Sampling(do_sample=False, max_tokens=ANSWER_TOKENS)
_SAID: Final = "The picture shows a path at the edge of a cliff under a sunny sky."


@dataclass(frozen=True)
class Pair:
    """What is compared: one way to answer, and plain ``generate`` on the same turns."""

    guarded: Call
    plain: Call


def policy(action: Action = "guide", **decoding: Any) -> Policy:
    """Return a policy under which every label has one action, and no prompt is kept.

    Random weights decide nothing, so what follows from a verdict is fixed here and asserted.
    """
    actions = Actions(safe=action, unsafe=action, undecided=action)
    judge = SameModelJudgeConfig(min_label_mass=0, cache_size=0)
    steering = {"strategy": "safecode", **decoding}
    return Policy.load(
        {"judge": judge, "actions": actions, "decoding": steering, "prefix_cache_bytes": 0}
    )


class Routes:
    """The routes over one model; each call of one answers the same turns."""

    def __init__(self, model: TransformersModel) -> None:
        self.model = model
        self.turn = turn_of(0)
        self.parameters: SteeringParameters = resolve(policy().decoding, model.family.steering)
        self._judge = _judge(model, self.turn, SUFFIX_TOKENS)
        self._check_length()

    # -- what is compared -----------------------------------------------------------------------

    def guided(self) -> Pair:
        """A steered turn whose verdict costs nothing."""
        return self._pair([self.turn], ScriptedJudge(0.9))

    def judged(self, action: Action = "guide", *, longer: int = 0, **decoding: Any) -> Pair:
        """A turn with the model's own verdict, its question 64 tokens long or longer."""
        judge = _judge(self.model, self.turn, SUFFIX_TOKENS + longer) if longer else self._judge
        return self._pair([self.turn], judge, action, **decoding)

    def default_question(self, turn: Turn) -> Pair:
        """A steered turn with the model's own verdict, asked as judges ask by default."""
        return self._pair([turn], LabelLogitsJudge(self.model, min_label_mass=0))

    def batch(self, size: int) -> Pair:
        """Steered turns with the model's own verdicts, in one batch."""
        return self._pair([turn_of(i) for i in range(size)], self._judge)

    def streamed(self) -> Pair:
        """A steered turn with the model's own verdict, read piece by piece."""
        return self._pair([self.turn], self._judge, live=True)

    def naive(self) -> Pair:
        """Guided decoding as the authors released it."""
        return Pair(self._naive, self._plain([self.turn]))

    def conversation_first(self) -> Pair:
        """The first turn of a conversation about a picture; nothing is kept before it."""
        pair = self._conversation([0])

        def afresh() -> object:
            self.model.kept.clear()
            return pair.guarded()

        return replace(pair, guarded=afresh)

    def conversation_rest(self) -> Pair:
        """The turns after it, one after the other."""
        return self._conversation(range(1, TURNS))

    def _conversation(self, places: Sequence[int]) -> Pair:
        turns = [spoken(place) for place in places]
        served = self._served(policy().updated(prefix_cache_bytes=PREFIX_CACHE_BYTES), self._judge)
        plain = [self._plain([turn]) for turn in turns]
        return Pair(
            lambda: [_steered(self._answered(served, [turn]), "guide") for turn in turns],
            lambda: [call() for call in plain],
        )

    def batch_parts(self) -> tuple[Call, Call, Call]:
        """Return a batch of 8 steered turns, and what it consists of.

        The whole, the prefill of 16 rows, and 63 steps of 8 rows.
        """
        turns = [turn_of(i) for i in range(BATCH)]
        rows = [*turns, *map(self._second, turns)]
        free = self.model.prefill(self.model.encode(turns), _SAMPLING)

        def decode() -> None:
            branch = free.fork()
            for _ in range(ANSWER_TOKENS - 1):
                branch.step(branch.logits.argmax(-1))

        whole = self._pair(turns, ScriptedJudge(0.9)).guarded
        return whole, lambda: self.model.prefill(self.model.encode(rows), _SAMPLING), decode

    # -- how it is answered ---------------------------------------------------------------------

    def _pair(
        self,
        turns: Sequence[Turn],
        judge: Judge,
        action: Action = "guide",
        *,
        live: bool = False,
        **decoding: Any,
    ) -> Pair:
        served = self._served(policy(action, **decoding), judge)
        return Pair(
            lambda: _steered(self._answered(served, turns, live=live), action),
            self._plain(turns),
        )

    def _served(self, rules: Policy, judge: Judge) -> GuardedTurns:
        return make_turns(self.model, make_examiner(rules, judge=judge))

    def _plain(self, turns: Sequence[Turn]) -> Call:
        return lambda: self.model.generate(turns, _SAMPLING)

    def _answered(
        self, served: GuardedTurns, turns: Sequence[Turn], *, live: bool = False
    ) -> list[TurnResult]:
        found = served.run([TurnRequest(turn, _SAMPLING, live=live) for turn in turns])
        for result in found:
            if isinstance(result, BaseException):
                raise result
        return [result for result in found if isinstance(result, TurnResult)]

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

    def _check_length(self) -> None:
        (result,) = self._answered(self._served(policy(), ScriptedJudge(0.9)), [self.turn])
        if (made := len(result.tokens)) != ANSWER_TOKENS:
            raise GuardError(
                f"The model ends its answer after {made} tokens, not {ANSWER_TOKENS}.",
                hint="Unset its generation_config.eos_token_id for this measurement.",
            )


def _steered(results: Sequence[TurnResult], action: Action) -> Sequence[TurnResult]:
    """Return answers after asserting their verdicts' action, and that those guided were steered.

    Raises:
        GuardError: If a turn was measured that is not the one whose name the row bears.
    """
    for result in results:
        (verdict,) = result.verdicts
        steps = verdict.decoding.steps if verdict.decoding else 0
        if verdict.action != action or (action == "guide") != (steps > 0):
            raise GuardError(
                f"A turn that was to end with {action!r} has {verdict.action!r}, {steps} steps.",
                hint="The row would measure something else than it says.",
            )
    return results


def turn_of(seed: int, *, words: int = 0, pictures: int = 1) -> Turn:
    """Return a turn with pictures of its own and a request of about 50 tokens, or of more.

    Args:
        seed: Of the pictures.
        words: Repetitions of the question; 0: five.
        pictures: How many.
    """
    images = tuple(_picture(seed + 1000 * i) for i in range(pictures))
    query = "How do I run faster here? " * (words or 5) + "Answer safe or unsafe. " * (seed % 3)
    parts: tuple[Part, ...] = (*(ImagePart(i) for i in range(pictures)), TextPart(query.strip()))
    return Turn((TurnMessage("user", parts),), images)


def spoken(place: int) -> Turn:
    """Return a conversation about one picture up to its turn of this place, from 0."""
    first = turn_of(0)
    messages = list(first.messages)
    for i in range(place):
        asked = f"How do I run here? {i}"
        messages.append(TurnMessage("assistant", (TextPart(_SAID),)))
        messages.append(TurnMessage("user", (TextPart(asked),)))
    return replace(first, messages=tuple(messages))


def long_turn(model: TransformersModel, tokens: int) -> Turn:
    """Return a turn with one picture and a request of at least so many tokens."""
    words = 1
    while len(model.vocabulary.encode(turn_of(0, words=words).query)) < tokens:
        words += max(1, words // 16)
    return turn_of(0, words=words)


def _picture(seed: int) -> CheckedImage:
    noise = np.random.default_rng(seed).integers(0, 255, (336, 336, 3), dtype=np.uint8)
    return CheckedImage(Image.fromarray(noise), f"bench-{seed}", "image/png", 0, 0)


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
