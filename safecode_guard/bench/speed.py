"""What guarding costs: ratios over plain ``generate``, measured in one interleaved run.

Ratios are of CPU time on one thread, medians over the rounds; absolute times are of this machine.
The default model has random weights: time depends on the shapes of the tensors and not on what
they say. ``--model`` measures your own.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from safecode_guard.bench.naive import naive_generate
from safecode_guard.bench.overhead import Overheads, measure_overheads
from safecode_guard.bench.timing import Timing, interleave
from safecode_guard.decoding.admission import Turnstile
from safecode_guard.errors import GuardError
from safecode_guard.images import CheckedImage
from safecode_guard.judges.prompts import GENERAL
from safecode_guard.judges.protocol import Judge, JudgeRequest
from safecode_guard.judges.same_model import LabelLogitsJudge
from safecode_guard.models.prefix import common_prefix
from safecode_guard.models.protocol import Sampling
from safecode_guard.models.transformers import TransformersModel
from safecode_guard.pipeline import Pipeline, TurnRequest, TurnResult, make_examiner
from safecode_guard.policy import Policy, SameModelJudgeConfig
from safecode_guard.steering.factory import make_strategy
from safecode_guard.steering.parameters import SteeringParameters, resolve
from safecode_guard.steering.views import second_views
from safecode_guard.testing import ScriptedJudge
from safecode_guard.turns import ImagePart, TextPart, Turn, TurnMessage

ANSWER_TOKENS: Final = 64
BATCH: Final = 8
SUFFIX_TOKENS: Final = 64
MORE_TOKENS: Final = 100
_SAMPLING: Final = Sampling(do_sample=False, max_tokens=ANSWER_TOKENS)
_POLICY: Final = Policy(judge=SameModelJudgeConfig(min_label_mass=0, cache_size=0))


@dataclass(frozen=True)
class SpeedReport:
    """The figures of one run; ratios are over plain ``generate`` of the same answer length."""

    guided_ratio: float
    """A guided turn without a judge."""
    turn_ratio: float
    """A guided turn with a verdict of the same model, its question 64 tokens long."""
    longer_question_ratio: float
    """The same with 100 more tokens in the question."""
    naive_ratio: float
    """Guided decoding as the authors released it."""
    batch_gain: float
    """Predicted over measured time of a batch of 8: prefill of 16 rows plus decoding of 8."""
    check_ms: float
    """A verdict by a scripted judge on a 96-px PNG, reading the image included."""
    decode_1080p_ms: float
    """Reading a 1080p JPEG."""
    overhead_ms: float
    """A guarded call around a model and a judge that take no time."""
    cached_ms: float
    """A verdict from the judgement cache, the request's hash included."""
    import_s: float
    """``import safecode_guard`` in a fresh process."""
    prompt_tokens: int
    answer_tokens: int
    rounds: int
    machine: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON types."""
        return asdict(self)


def measure(
    model: TransformersModel,
    *,
    rounds: int = 5,
    on_call: Callable[[], None] = lambda: None,
) -> SpeedReport:
    """Measure a model; takes about two minutes on the reference model.

    Args:
        model: What to measure; its answers must run to 64 tokens.
        rounds: Counted rounds of the interleaved routes.
        on_call: Told after each timed call.
    """
    bench = _Bench(model)
    timings = interleave(bench.routes(), rounds=rounds, on_call=on_call)
    plain = timings["plain"]
    overheads: Overheads = measure_overheads()
    return SpeedReport(
        guided_ratio=timings["guided"].ratio(plain),
        turn_ratio=timings["turn"].ratio(plain),
        longer_question_ratio=timings["longer_question"].ratio(plain),
        naive_ratio=timings["naive"].ratio(plain),
        batch_gain=_gain(timings),
        check_ms=overheads.check_ms,
        decode_1080p_ms=overheads.decode_1080p_ms,
        overhead_ms=overheads.overhead_ms,
        cached_ms=overheads.cached_ms,
        import_s=import_seconds(),
        prompt_tokens=len(model.encode([bench.turn]).ids[0]),
        answer_tokens=ANSWER_TOKENS,
        rounds=rounds,
        machine=machine(),
    )


class _Bench:
    """The routes over one model."""

    def __init__(self, model: TransformersModel) -> None:
        self.model = model
        self.turns = [_turn(i) for i in range(BATCH)]
        self.turn = self.turns[0]
        self.parameters: SteeringParameters = resolve(_POLICY.decoding, model.family.steering)
        self._check_length()

    def routes(self) -> dict[str, Callable[[], object]]:
        """Return what is timed, by name."""
        unjudged = self._pipeline(ScriptedJudge(0.9))
        judged = self._pipeline(_judge(self.model, self.turn, SUFFIX_TOKENS))
        longer = self._pipeline(_judge(self.model, self.turn, SUFFIX_TOKENS + MORE_TOKENS))
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

    def _pipeline(self, judge: Judge) -> Pipeline:
        return Pipeline(
            self.model,
            make_examiner(_POLICY, judge=judge),
            strategy=make_strategy(_POLICY.decoding),
            parameters=self.parameters,
            turnstile=Turnstile(),
        )

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
        result = self._pipeline(ScriptedJudge(0.9)).run([TurnRequest(self.turn, _SAMPLING)])
        if (made := len(_answered(result)[0].tokens)) != ANSWER_TOKENS:
            raise GuardError(
                f"The model ends its answer after {made} tokens, not {ANSWER_TOKENS}.",
                hint="Unset its generation_config.eos_token_id for this measurement.",
            )


def _gain(timings: dict[str, Timing]) -> float:
    rounds = zip(
        timings["prefill_16"].seconds,
        timings["decode_8"].seconds,
        timings["batch"].seconds,
        strict=True,
    )
    return statistics.median((prefill + decode) / whole for prefill, decode, whole in rounds)


def _turn(seed: int) -> Turn:
    """Return a turn with a picture of its own and a request of about 50 tokens."""
    noise = np.random.default_rng(seed).integers(0, 255, (336, 336, 3), dtype=np.uint8)
    image = CheckedImage(Image.fromarray(noise), f"bench-{seed}", "image/png", 0, 0)
    query = "How do I run faster here? " * 4 + "Answer safe or unsafe. " * (seed % 3)
    return Turn((TurnMessage("user", (ImagePart(0), TextPart(query.strip()))),), (image,))


def _judge(model: TransformersModel, turn: Turn, tokens: int) -> LabelLogitsJudge:
    """Return a judge whose question adds so many tokens to the prefix it shares."""
    prompt, words = GENERAL, 0
    judge = LabelLogitsJudge(model, min_label_mass=0)
    while words <= 2 * tokens:
        words += 1
        text = " ".join(["Is it safe?"] * (words // 3) + ["safe"] * (words % 3))
        prompt = replace(GENERAL, id="bench", version=str(words), input=text, reply="")
        judge = LabelLogitsJudge(model, min_label_mass=0, prompt=prompt)
        asked = model.encode([judge.question(JudgeRequest("input", turn))])
        shared = common_prefix(model.encode([turn]), asked)[0]
        if len(asked.ids[0]) - shared >= tokens:
            break
    return judge


def _answered(results: Any) -> list[TurnResult]:
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)


def import_seconds(runs: int = 5) -> float:
    """Return the median seconds of ``import safecode_guard`` in fresh processes."""
    timed = "t = time.perf_counter(); import safecode_guard; print(time.perf_counter() - t)"
    code = f"import time; {timed}"
    command = [sys.executable, "-c", code]
    times = [
        float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        for _ in range(runs)
    ]
    return statistics.median(times)


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    from importlib.metadata import version

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "date": time.strftime("%Y-%m-%d"),
    }
