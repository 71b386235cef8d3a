"""From LangChain messages of any class and provider to a `Turn`."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from safecode_guard.errors import ImageError, ImageTooLarge, TemplateError
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.blocks import Link, Media, Refused, Text, replace_media, walk
from safecode_guard.turns.fetch import fetch_image
from safecode_guard.turns.images import CheckedImage, Fetch, load, located
from safecode_guard.turns.turn import ImagePart, Part, Role, TextPart, ToolCall, Turn, TurnMessage
from safecode_guard.verdict import SkippedMedia

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage


def read_turn(
    messages: Sequence[BaseMessage],
    policy: ImagePolicy | None = None,
    *,
    strict: bool = False,
    fetch: Fetch = fetch_image,
    pictures=None,
    deadline=None,
) -> Turn:
    """Read LangChain messages of any class and provider into a turn.

    Images are looked for in the raw content of every message, tool results included. Reasoning
    of earlier answers and artifacts of tools are not sent to a model, and are left out.

    Args:
        messages: The conversation, oldest first.
        policy: Limits and allowed sources of images.
        strict: Raise for the first medium that cannot be judged, instead of listing it in
            ``Turn.skipped``.
        fetch: Fetches the https URLs that the policy allows.

    Raises:
        TemplateError: If there is no message, or one with a role that no model knows.
        ImageError: With ``strict``, for the first medium that cannot be judged.

    Example:
        >>> from langchain_core.messages import HumanMessage
        >>> read_turn([HumanMessage("How do I run faster here?")]).query
        'How do I run faster here?'
    """
    return _Reader(policy or ImagePolicy(), strict=strict, fetch=fetch).turn(messages)


def read_and_inline(
    messages: Sequence[BaseMessage],
    policy: ImagePolicy | None = None,
    *,
    strict: bool = False,
    fetch: Fetch = fetch_image,
) -> tuple[Turn, list[BaseMessage]]:
    """Read a turn, and return the messages with the bytes that were read in place of their URLs.

    For models that are handed the messages and not the turn: fetching a URL for themselves they
    could be shown another image than the judge. Takes and raises what `read_turn` does.
    """
    reader = _Reader(policy or ImagePolicy(), strict=strict, fetch=fetch)
    turn = reader.turn(messages)
    if not reader.fetched:
        return turn, list(messages)
    mimes = {image.sha256: image.mime for image in turn.images}

    def inline(media: Media) -> dict[str, Any] | None:
        url = media.source.url.strip() if isinstance(media.source, Link) else None
        if url not in reader.fetched:
            return None
        data = reader.fetched[url]
        mime = mimes.get(hashlib.sha256(data).hexdigest(), "application/octet-stream")
        return {"type": "image", "base64": b64encode(data).decode(), "mime_type": mime}

    return turn, [
        message.model_copy(update={"content": replace_media(message.content, inline)})
        for message in messages
    ]


_ROLES: Final[Mapping[str, Role]] = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}


@dataclass
class _Reader:
    """Collects the images and the skipped media of one conversation."""

    policy: ImagePolicy
    strict: bool
    fetch: Fetch
    images: list[CheckedImage] = field(default_factory=list)
    skipped: list[SkippedMedia] = field(default_factory=list)
    fetched: dict[str, bytes] = field(default_factory=dict)
    tried: int = 0

    def turn(self, messages: Sequence[BaseMessage]) -> Turn:
        read = [
            self._read(message, index)
            for index, message in enumerate(messages)
            if getattr(message, "type", None) != "remove"
        ]
        if not read:
            raise TemplateError("The conversation is empty.", hint="Send at least one message.")
        return Turn(tuple(read), tuple(self.images), tuple(self.skipped))

    def _read(self, message: BaseMessage, index: int) -> TurnMessage:
        if not hasattr(message, "content"):
            raise TemplateError(
                f"Item {index} of the conversation is no message: {type(message).__name__}.",
                hint="See langchain_core.messages.convert_to_messages.",
            )
        content: Any = message.content
        blocks = content if isinstance(content, list) else [content]
        parts: list[Part] = []
        for block_index, block in enumerate(blocks):
            for found in walk(block):
                if isinstance(found, Text):
                    parts.append(TextPart(found.text))
                else:
                    parts += self._read_media(found, index, block_index)
        return TurnMessage(
            role=_role(message, index),
            parts=tuple(parts),
            tool_calls=_tool_calls(message, index),
            tool_call_id=getattr(message, "tool_call_id", None),
            name=message.name,
        )

    def _read_media(
        self, found: Media | Refused, message_index: int, block_index: int
    ) -> list[ImagePart]:
        try:
            images = self._load(found, message_index, block_index)
        except ImageError as error:
            if self.strict:
                raise
            kind = found.kind if isinstance(found, Refused) else "image"
            self.skipped.append(_skip(error, kind, message_index, block_index))
            return []
        first = len(self.images)
        self.images += images
        return [ImagePart(first + offset) for offset in range(len(images))]

    def _load(
        self, found: Media | Refused, message_index: int, block_index: int
    ) -> list[CheckedImage]:
        if isinstance(found, Refused):
            raise located(found.error, message_index, block_index)
        # Failures count too: a conversation of dead links must not cost a time-out for each.
        self.tried += 1
        if self.tried > self.policy.max_images:
            raise self._too_many(message_index, block_index)
        images = load(
            found,
            self.policy,
            message_index=message_index,
            block_index=block_index,
            fetch=self._fetch_once,
        )
        if len(self.images) + len(images) > self.policy.max_images:
            raise self._too_many(message_index, block_index)
        return images

    def _fetch_once(self, url: str, policy: ImagePolicy) -> bytes:
        if url not in self.fetched:
            self.fetched[url] = self.fetch(url, policy)
        return self.fetched[url]

    def _too_many(self, message_index: int, block_index: int) -> ImageError:
        return ImageTooLarge(
            f"The turn has more than {self.policy.max_images} images.",
            hint="Send fewer, trim the history, or raise images.max_images in the policy.",
            message_index=message_index,
            block_index=block_index,
        )


def _role(message: BaseMessage, index: int) -> Role:
    """Return the role of a message or a chunk of one; a chat message names its own."""
    kind = message.type.removesuffix("MessageChunk").lower()
    name = str(getattr(message, "role", "")).lower() if kind == "chat" else kind
    if name not in _ROLES:
        raise TemplateError(
            f"Message {index} has the role {name[:40]!r}, which no model knows.",
            hint=f"Use one of {sorted(_ROLES)}.",
        )
    return _ROLES[name]


def _tool_calls(message: BaseMessage, index: int) -> tuple[ToolCall, ...]:
    calls = getattr(message, "tool_calls", None) or ()
    return tuple(
        ToolCall(call.get("id") or f"call_{index}_{number}", call["name"], dict(call["args"] or {}))
        for number, call in enumerate(calls)
    )


def _skip(error: ImageError, kind: str, message_index: int, block_index: int) -> SkippedMedia:
    return SkippedMedia(
        message_index=message_index,
        block_index=block_index,
        kind=kind,
        reason=f"{type(error).__name__}: {error}",
    )
