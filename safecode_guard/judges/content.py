"""The scene as one message to a chat judge: the pictures themselves, then the question.

Whatever roles, tool calls and system text the conversation had, it becomes a single user message,
which every provider accepts and no instruction in it can pose as.
"""

from __future__ import annotations

import base64
import io
from typing import Any, Final

from PIL import Image

from safecode_guard.judges.prompts import JudgePrompt
from safecode_guard.judges.protocol import JudgeRequest

_LOSSLESS_PIXELS: Final = 1_000_000
_JPEG_QUALITY: Final = 92

Block = dict[str, Any]


def judge_content(request: JudgeRequest, prompt: JudgePrompt) -> list[Block]:
    """Return the content blocks that ask about a request: the scene's pictures, then the question.

    Pictures become v1 image blocks made from the checked pixels, so that the judge sees what the
    guarded model sees, and no metadata of the file.
    """
    pictures = [image_block(image.pixels) for image in request.scene.images]
    return [*pictures, {"type": "text", "text": prompt.text(request)}]


def image_block(pixels: Image.Image) -> Block:
    """Return a picture as a v1 image block: PNG, or JPEG for one above a megapixel."""
    lossless = pixels.width * pixels.height <= _LOSSLESS_PIXELS
    buffer = io.BytesIO()
    if lossless:
        pixels.save(buffer, "PNG")
    else:
        pixels.convert("RGB").save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return {
        "type": "image",
        "base64": base64.b64encode(buffer.getvalue()).decode(),
        "mime_type": "image/png" if lossless else "image/jpeg",
    }
