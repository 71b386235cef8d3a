"""A conversation as one message to a chat judge: delimited text, and the pictures themselves.

Whatever roles, tool calls and system text the conversation has, it becomes a single user message,
which every provider accepts and no instruction in it can pose as.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any, Final

from PIL import Image

from safecode_guard.judges.prompts import JudgePrompt, neutralise
from safecode_guard.judges.protocol import JudgeRequest
from safecode_guard.turns.turn import TextPart, Turn, TurnMessage

_LOSSLESS_PIXELS: Final = 1_000_000
_JPEG_QUALITY: Final = 92

Block = dict[str, Any]


def judge_content(request: JudgeRequest, prompt: JudgePrompt) -> list[Block]:
    """Return the content blocks that ask about a request: conversation, pictures, question.

    Pictures stand where the conversation has them, as v1 image blocks made from the checked
    pixels, so that the judge sees what the guarded model sees, and no metadata of the file.
    """
    blocks: list[Block] = []
    for message in request.turn.messages:
        blocks += _message_blocks(message, request.turn)
    blocks.append(_text(prompt.text(request)))
    return _joined(blocks)


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


def _message_blocks(message: TurnMessage, turn: Turn) -> list[Block]:
    blocks = [_text(f'<message role="{message.role}">')]
    for part in message.parts:
        if isinstance(part, TextPart):
            blocks.append(_text(neutralise(part.text)))
        else:
            blocks.append(image_block(turn.images[part.index].pixels))
    for call in message.tool_calls:
        arguments = json.dumps(call.arguments, sort_keys=True, ensure_ascii=False, default=str)
        blocks.append(_text(neutralise(f"\n(calls {call.name} {arguments})")))
    blocks.append(_text("</message>\n"))
    return blocks


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _joined(blocks: list[Block]) -> list[Block]:
    """Join neighbouring text blocks."""
    joined: list[Block] = []
    for block in blocks:
        if block["type"] == "text" and joined and joined[-1]["type"] == "text":
            joined[-1] = _text(joined[-1]["text"] + block["text"])
        else:
            joined.append(block)
    return joined
