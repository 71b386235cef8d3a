"""Messages for tests: pictures of one colour, and turns about them."""

from __future__ import annotations

import base64
import io
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage
from PIL import Image

QUERY = "How do I run faster here?"


def png(colour: str = "red", size: tuple[int, int] = (24, 16)) -> bytes:
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def image_block(colour: str = "red") -> dict[str, Any]:
    """A v1 image block."""
    data = base64.b64encode(png(colour)).decode()
    return {"type": "image", "base64": data, "mime_type": "image/png"}


def text_block(text: str) -> dict[str, Any]:
    """A text block."""
    return {"type": "text", "text": text}


def ask(text: str = QUERY, *colours: str) -> list[BaseMessage]:
    """One user turn with a picture (red unless said otherwise) and a question."""
    blocks = [image_block(colour) for colour in colours or ("red",)]
    return [HumanMessage([*blocks, text_block(text)])]
