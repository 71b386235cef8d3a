"""Turns about drawn pictures, for the other examples."""

import base64
import io

from langchain_core.messages import BaseMessage, HumanMessage

from safecode_guard.tiny.world import draw


def ask(question: str, *, family: str = "path", unsafe: bool) -> list[BaseMessage]:
    """Return a user turn with a picture drawn by the tiny world, as PNG bytes in the message."""
    buffer = io.BytesIO()
    draw(7, family, unsafe=unsafe).image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    image = {"type": "image", "base64": data, "mime_type": "image/png"}
    return [HumanMessage([image, {"type": "text", "text": question}])]
