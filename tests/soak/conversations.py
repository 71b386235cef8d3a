"""Random conversations over every block form and message class, with pictures that are known."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
from collections.abc import Callable
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    ToolMessage,
)
from PIL import Image

Block = Any
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")


class Pictures:
    """Makes small pictures, each different, in several formats."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def image(self) -> Image.Image:
        draw = self._draw
        mode = draw.choice(["RGB"] * 6 + ["RGBA", "L", "P"])
        size = (draw.randint(1, 9), draw.randint(1, 9))
        image = Image.new("RGB", size, tuple(draw.randrange(256) for _ in range(3)))
        if mode == "RGBA":
            image.putalpha(draw.randrange(256))
            return image
        return image.convert(mode)

    def data(self) -> tuple[bytes, str]:
        """Return encoded bytes and their mime type."""
        image, form = self.image(), self._draw.choice(_FORMATS)
        if image.mode != "RGB" and form in ("JPEG", "BMP"):
            form = "PNG"
        buffer = io.BytesIO()
        options: dict[str, Any] = {}
        if form == "GIF" and self._draw.random() < 0.3:
            frames = [self.image().convert("RGB").resize(image.size) for _ in range(3)]
            options = {"save_all": True, "append_images": frames}
        image.convert("RGB" if form in ("JPEG", "BMP", "GIF") else image.mode).save(
            buffer, form, **options
        )
        return buffer.getvalue(), f"image/{form.lower()}"

    def encoded(self) -> tuple[str, str]:
        """Return base64, sometimes oddly written, and a mime type, sometimes a wrong one."""
        data, mime = self.data()
        text, draw = base64.b64encode(data).decode(), self._draw
        oddity = draw.random()
        if oddity < 0.05:
            text = base64.urlsafe_b64encode(data).decode()
        elif oddity < 0.1:
            at = draw.randrange(len(text))
            text = f"{text[:at]}{draw.choice(['-', '_', '-_-_', chr(10), ' ', '='])}{text[at:]}"
        elif oddity < 0.13:
            text = text.rstrip("=")
        return text, draw.choice([mime] * 9 + ["image/png", "text/plain", "application/pdf"])


def block(draw: random.Random, pictures: Pictures, depth: int = 0) -> Block:
    """Return a random block: text, a picture in some provider's form, or something odd."""
    makers: list[Callable[[], Block]] = [
        lambda: {"type": "text", "text": _words(draw)},
        lambda: _words(draw),
        *(lambda form=form: _picture(form, *pictures.encoded()) for form in FORMS),
        lambda: {"type": "image", "image": pictures.image()},
        lambda: _odd(draw, pictures),
    ]
    if depth < 3:
        makers += [
            lambda: {
                "type": "tool_result",
                "tool_use_id": "t1",
                "content": [block(draw, pictures, depth + 1) for _ in range(draw.randint(0, 3))],
            },
            lambda: {"type": "non_standard", "value": block(draw, pictures, depth + 1)},
            lambda: {
                "toolResult": {
                    "toolUseId": "t1",
                    "content": [block(draw, pictures, depth + 1)],
                }
            },
            lambda: {
                "functionResponse": {
                    "name": "look",
                    "response": {"x": 1},
                    "parts": [block(draw, pictures, depth + 1)],
                }
            },
        ]
    return draw.choice(makers)()


FORMS = (
    "v1", "v0", "openai", "openai-flat", "responses", "anthropic", "anthropic-url", "bedrock",
    "bedrock-typed", "genai", "media", "hf", "file", "file-openai", "v1-url", "cached", "mcp",
)  # fmt: skip


def _picture(form: str, text: str, mime: str) -> Block:
    url = f"data:{mime};base64,{text}"
    source = {"type": "base64", "media_type": mime, "data": text}
    return {
        "v1": {"type": "image", "base64": text, "mime_type": mime},
        "v0": {"type": "image", "source_type": "base64", "data": text, "mime_type": mime},
        "openai": {"type": "image_url", "image_url": {"url": url}},
        "openai-flat": {"type": "image_url", "image_url": url},
        "responses": {"type": "input_image", "image_url": url},
        "anthropic": {"type": "image", "source": source},
        "anthropic-url": {"type": "image", "source": {"type": "url", "url": url}},
        "bedrock": {"image": {"format": mime[6:] or "png", "source": {"bytes": _raw(text)}}},
        "bedrock-typed": {
            "type": "image",
            "image": {"format": "png", "source": {"bytes": _raw(text)}},
        },
        "genai": {"inline_data": {"mime_type": mime, "data": text}},
        "media": {"type": "media", "mime_type": mime, "data": text},
        "hf": {"type": "image", "url": url},
        "file": {"type": "file", "base64": text, "mime_type": mime},
        "file-openai": {"type": "file", "file": {"file_data": url, "filename": "a.png"}},
        "v1-url": {"type": "image", "url": url, "mime_type": mime},
        "cached": {
            "type": "image_url",
            "image_url": {"url": url, "detail": "low"},
            "cache_control": {"type": "ephemeral"},
        },
        "mcp": {"type": "image", "data": text, "mimeType": mime},
    }[form]


def _raw(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        return b"\x89PNG odd"


def _odd(draw: random.Random, pictures: Pictures) -> Block:
    """Return something that hides a picture, or nearly one."""
    text, mime = pictures.encoded()
    url = f"data:{mime};base64,{text}"
    remote = draw.choice(["https://example.com/a.png", "file:///etc/a.png", "/tmp/a.png", "a.png"])
    return draw.choice(
        [
            {"type": "text", "text": "look", "url": url},
            {"type": "text", "text": "look", "image_url": {"url": remote}},
            {"type": "text", "text": "look", "source": {"type": "base64", "data": text}},
            {"type": "text", "text": "look", "file_id": "file-1"},
            {"type": "image", "url": remote},
            {"type": "image", "file_id": "file-1"},
            {"type": "image_url", "image_url": {"url": remote}},
            {"type": "reasoning", "reasoning": "hm", "image": url},
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {
                "type": "computer_call",
                "action": {"type": "screenshot"},
                "output": {"image_url": url},
            },
            {
                "type": "computer_call_output",
                "output": {"type": "computer_screenshot", "image_url": url},
            },
            {"type": "image_generation_call", "result": text, "id": "i1"},
            {"type": "tool_use", "id": "t", "name": "n", "input": {"a": {"image": url}}},
            {"type": "blob", "blob": text, "mimeType": mime},
            {"type": "resource", "resource": {"blob": text, "mimeType": mime}},
            {"screenshot": url},
            {"text": "look", "inlineData": {"mimeType": mime, "data": text}},
            {"type": "audio", "base64": text, "mime_type": "audio/wav"},
            {"type": "video", "url": url},
            {"type": "document", "source": {"type": "base64", "media_type": mime, "data": text}},
            {"fileData": {"mimeType": mime, "fileUri": remote}},
            {"type": "unheard_of", "data": text},
            {},
        ]
    )


def _words(draw: random.Random) -> str:
    return draw.choice(["look", "How do I run faster?", "yes", "data: none", "{}", " ", "<image>"])


def message(draw: random.Random, pictures: Pictures) -> BaseMessage:
    """Return a message of a random class with random content."""
    content: Any = [block(draw, pictures) for _ in range(draw.randint(1, 3))]
    content = [one for one in content if isinstance(one, str | dict)]
    if draw.random() < 0.2:
        content = _words(draw)
    text, mime = pictures.encoded()
    url = f"data:{mime};base64,{text}"
    makers: list[Callable[[], BaseMessage]] = [
        lambda: HumanMessage(content),
        lambda: HumanMessage(content),
        lambda: SystemMessage(content),
        lambda: AIMessage(content),
        lambda: AIMessage(
            content, response_metadata={"model_provider": draw.choice(["anthropic", "openai"])}
        ),
        lambda: AIMessage(
            content,
            tool_calls=[{"name": "look", "args": {"at": draw.choice(["sea", url])}, "id": "t1"}],
        ),
        lambda: AIMessage(content, additional_kwargs={draw.choice(["x", "image", "audio"]): url}),
        lambda: AIMessageChunk(content),
        lambda: HumanMessageChunk(content),
        lambda: ChatMessage(content, role=draw.choice(["user", "assistant", "system"])),
        lambda: FunctionMessage(content, name="look"),
        lambda: ToolMessage(content, tool_call_id="t1"),
        lambda: ToolMessage(
            url, tool_call_id="t1", additional_kwargs={"type": "computer_call_output"}
        ),
        lambda: ToolMessage(f"seen: {url} so", tool_call_id="t1"),
        lambda: ToolMessage(json.dumps({"screenshot": url}), tool_call_id="t1"),
        lambda: ToolMessage(
            json.dumps([_picture(draw.choice(("v1", "openai", "media", "mcp")), text, mime)]),
            tool_call_id="t1",
        ),
        lambda: ToolMessage("done", tool_call_id="t1", artifact={"picture": pictures.image()}),
        lambda: ToolMessage("done", tool_call_id="t1", artifact=[url]),
    ]
    return draw.choice(makers)()


def conversation(seed: int) -> list[BaseMessage]:
    """Return the random conversation of a seed."""
    draw = random.Random(seed)
    pictures = Pictures(draw)
    made = [message(draw, pictures) for _ in range(draw.randint(0, 4))]
    return [*made, HumanMessage([block(draw, pictures), {"type": "text", "text": "And now?"}])]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
