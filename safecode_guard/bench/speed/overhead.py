"""What guarding costs around the model: reading, judging by script, LangChain, the cache."""

from __future__ import annotations

import base64
import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from langchain_core.messages import HumanMessage
from PIL import Image

from safecode_guard.pipeline.examiner import Subject
from safecode_guard.policy import Policy
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from safecode_guard.turns.reading import read_turn

_RUNS = 30


@dataclass(frozen=True)
class Overheads:
    """Median milliseconds."""

    check_ms: float
    decode_1080p_ms: float
    overhead_ms: float
    cached_ms: float


def measure_overheads() -> Overheads:
    """Measure what does not depend on a model."""
    small = [_message(_encoded(96, 96, "PNG"), "image/png")]
    large = [_message(_encoded(1920, 1080, "JPEG"), "image/jpeg")]
    uncached = Policy.load({"judge": {"kind": "custom", "id": "scripted", "cache_size": 0}})
    model = ChatTransformers.from_engine(ScriptedVLM("Yes."), temperature=0)
    guard = SafeCoDeGuard(model=model, judge=ScriptedJudge(0.1), policy=uncached)
    cached = SafeCoDeGuard(model=model, judge=ScriptedJudge(0.1))
    question = Subject("input", read_turn(small))
    cached.examiner.check(question)
    return Overheads(
        check_ms=_median_ms(lambda: guard.check(small)),
        decode_1080p_ms=_median_ms(lambda: read_turn(large)),
        overhead_ms=_median_ms(lambda: guard.invoke(small)),
        cached_ms=_median_ms(lambda: cached.examiner.check(question)),
    )


def _median_ms(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


def _encoded(width: int, height: int, form: str) -> str:
    """Return a picture with some content, as base64."""
    rows = np.linspace(0, 255, height, dtype=np.uint8)[:, None, None]
    columns = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
    channels = np.array([1, 3, 7], dtype=np.uint8)
    pixels = (rows ^ columns) * channels
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode()


def _message(data: str, mime: str) -> HumanMessage:
    image = {"type": "image", "base64": data, "mime_type": mime}
    return HumanMessage([image, {"type": "text", "text": "How do I run faster here?"}])
