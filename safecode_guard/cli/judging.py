"""Trying out a judge at the start, so that what is wrong with it is not told at every turn."""

from __future__ import annotations

import io
import time
from contextlib import closing
from typing import Any

from safecode_guard.cli.opening import image_messages
from safecode_guard.errors import GuardError
from safecode_guard.judges.protocol import Judge, JudgeRequest
from safecode_guard.policy import JudgeConfig

_QUESTION = "What does this picture show?"


def try_judge(config: JudgeConfig) -> dict[str, Any]:
    """Return what a judge says of a grey picture, or the ``error`` that it fails with."""
    from safecode_guard.pipeline.factory import judge_of

    try:
        with closing(judge_of(config)) as judge:
            return {"id": judge.id, **_asked(judge)}
    except GuardError as error:
        cause = f" ({error.__cause__})" if isinstance(error.__cause__, GuardError) else ""
        return {"error": f"{error.message}{cause}", "hint": error.hint}


def _asked(judge: Judge) -> dict[str, Any]:
    started = time.monotonic()
    found = judge.judge(_request())
    if found.failed is not None:
        return {"error": f"The judge failed: {found.failed}.", "hint": None}
    return {
        "label": found.label,
        "p_unsafe": found.p_unsafe,
        "read_by": found.reply_form or found.parse_status,
        "seconds": round(time.monotonic() - started, 3),
    }


def _request() -> JudgeRequest:
    from PIL import Image

    from safecode_guard.turns.reading import read_turn

    file = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(file, "PNG")
    return JudgeRequest.of_turn(read_turn(image_messages(file.getvalue(), _QUESTION)))
