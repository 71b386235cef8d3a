"""What a judge says of nothing: the bias that its question and its vocabulary bring about.

Contextual calibration (Zhao et al., 2021): a model that says "unsafe" of a grey picture and a
request that says nothing says it too often of everything.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Final

from PIL import Image

from safecode_guard.judges.protocol import JudgeRequest, ToolCallSubject
from safecode_guard.taxonomy import Stage
from safecode_guard.turns.images import CheckedImage
from safecode_guard.turns.turn import ImagePart, TextPart, Turn, TurnMessage

NOTHING: Final = ("N/A", "...", "nothing")
"""Requests without content; what is said of them is averaged, as log-odds."""
_SIDE: Final = 96


def contentless(stage: Stage) -> list[JudgeRequest]:
    """Return requests to judge nothing at a stage, each before a grey picture."""
    return [_contentless(stage, text) for text in NOTHING]


def _contentless(stage: Stage, text: str) -> JudgeRequest:
    pixels = Image.new("RGB", (_SIDE, _SIDE), (128, 128, 128))
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    picture = CheckedImage(pixels, digest, "image/png", 0, 0)
    message = TurnMessage("user", (ImagePart(0), TextPart(text)))
    request = replace(JudgeRequest.of_turn(Turn((message,), (picture,))), stage=stage)
    if stage == "tool_call":
        return replace(request, tool_call=ToolCallSubject("", text, {}))
    if stage == "tool_result":
        return replace(request, result=text)
    return replace(request, answer=text) if stage == "output" else request
