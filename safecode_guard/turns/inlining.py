"""Puts bytes in the place of image objects in messages.

LangChain's cache and its tracers write messages as text. An image object, or a view of memory,
becomes its address there, so that another image at the same address would be taken for it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from safecode_guard.errors import ImageError
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.artifacts import images_in
from safecode_guard.turns.blocks import MAX_DEPTH
from safecode_guard.turns.decoding import decode_handed_over
from safecode_guard.turns.found import Encoded, Link, Media, Source
from safecode_guard.turns.images import to_png
from safecode_guard.turns.media import Block, in_memory, media_of

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage


def with_bytes(
    messages: Sequence[BaseMessage], policy: ImagePolicy | None = None
) -> list[BaseMessage]:
    """Return messages whose image objects have become image blocks with the bytes of a PNG.

    Of an artifact with pictures only these are left: no model is shown the rest. A message without
    image objects is returned as it is. So is an image object that the policy's limits refuse:
    reading the message will say so.
    """
    limits = policy or ImagePolicy()
    return [_inlined(message, limits) for message in messages]


def _inlined(message: BaseMessage, policy: ImagePolicy) -> BaseMessage:
    content: Any = getattr(message, "content", None)
    update = {"content": _replaced(content, policy, 0)} if _has_pixels(content, 0) else {}
    if images := images_in(getattr(message, "artifact", None)):
        update["artifact"] = [_written(image.source, policy) for image in images]
    return message.model_copy(update=update) if update else message


def _written(source: Source, policy: ImagePolicy) -> Any:
    """Return a picture of an artifact in a form whose text tells it from every other."""
    if isinstance(source, Image.Image):
        return _block(source, policy)
    if isinstance(source, Link):
        return source.url
    if isinstance(source, Encoded):
        return {"type": "image", "base64": source.text, "mime_type": "image/*"}
    return source


def _has_pixels(content: Any, depth: int) -> bool:
    if isinstance(content, str) or depth > 2 * MAX_DEPTH:
        return False
    if isinstance(content, Mapping):
        return any(_has_pixels(value, depth + 1) for value in content.values())
    if isinstance(content, list | tuple):
        return any(_has_pixels(item, depth + 1) for item in content)
    return isinstance(content, Image.Image | memoryview)


def _replaced(content: Any, policy: ImagePolicy, depth: int) -> Any:
    if not _has_pixels(content, depth):
        return content
    if isinstance(content, Image.Image):
        return _block(content, policy)
    if isinstance(content, memoryview):
        media = in_memory(content)
        return media.source if isinstance(media, Media) else content
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
