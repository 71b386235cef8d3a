"""Puts bytes in the place of image objects in messages.

LangChain's cache and its tracers write messages as text. An image object becomes its memory
address there, so that another image at the same address would be taken for it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from safecode_guard.errors import ImageError
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.blocks import MAX_DEPTH
from safecode_guard.turns.decoding import decode_handed_over
from safecode_guard.turns.found import Media
from safecode_guard.turns.images import to_png
from safecode_guard.turns.media import Block, media_of

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage


def with_bytes(
    messages: Sequence[BaseMessage], policy: ImagePolicy | None = None
) -> list[BaseMessage]:
    """Return messages whose image objects have become image blocks with the bytes of a PNG.

    A message without image objects is returned as it is. So is an image object that the policy's
    limits refuse: reading the message will say so.
    """
    limits = policy or ImagePolicy()
    return [_inlined(message, limits) for message in messages]


def _inlined(message: BaseMessage, policy: ImagePolicy) -> BaseMessage:
    content: Any = getattr(message, "content", None)
    if not _has_pixels(content, 0):
        return message
    return message.model_copy(update={"content": _replaced(content, policy, 0)})


def _has_pixels(content: Any, depth: int) -> bool:
    if isinstance(content, str) or depth > 2 * MAX_DEPTH:
        return False
    if isinstance(content, Mapping):
        return any(_has_pixels(value, depth + 1) for value in content.values())
    if isinstance(content, list | tuple):
        return any(_has_pixels(item, depth + 1) for item in content)
    return isinstance(content, Image.Image)


def _replaced(content: Any, policy: ImagePolicy, depth: int) -> Any:
    if not _has_pixels(content, depth):
        return content
    if isinstance(content, Image.Image):
        return _block(content, policy)
    if isinstance(content, list | tuple):
        return [_replaced(item, policy, depth + 1) for item in content]
    pixels = _whole_image(content)
    if pixels is not None:
        return _block(pixels, policy, otherwise=content)
    return {key: _replaced(value, policy, depth + 1) for key, value in content.items()}


def _whole_image(block: Mapping[Any, Any]) -> Image.Image | None:
    """Return the image object that a block is all about."""
    media = media_of(Block.of(block))
    source = media[0].source if len(media) == 1 and isinstance(media[0], Media) else None
    return source if isinstance(source, Image.Image) else None


def _block(image: Image.Image, policy: ImagePolicy, *, otherwise: Any = None) -> Any:
    try:
        data = to_png(decode_handed_over(image, policy))
    except ImageError:
        return image if otherwise is None else otherwise
    return {"type": "image", "base64": b64encode(data).decode(), "mime_type": "image/png"}
