"""A `Turn`: a conversation as the model and the judge see it, with its images checked.

LangChain messages become a turn in `read_turn`; from there on nothing knows LangChain.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from PIL import Image

from safecode_guard.blocks import Link, Media, Refused, Text, replace_media, walk
from safecode_guard.errors import ImageError, ImageTooLarge, TemplateError
from safecode_guard.fetch import fetch_image
from safecode_guard.images import CheckedImage, Fetch, load, located
from safecode_guard.policy import ImagePolicy
from safecode_guard.verdict import SkippedMedia, SubjectImage

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class TextPart:
    """A run of text in a message."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """An image in a message: an index into ``Turn.images``."""

    index: int


Part = TextPart | ImagePart


@dataclass(frozen=True)
class ToolCall:
    """A tool call the assistant made earlier in the conversation."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class TurnMessage:
    """One message of the conversation."""

    role: Role
    parts: tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The message's text, its runs joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def image_indices(self) -> tuple[int, ...]:
        """Indices of the message's images, in order."""
        return tuple(part.index for part in self.parts if isinstance(part, ImagePart))


@dataclass(frozen=True)
class Turn:
    """A conversation up to the answer that is to be given."""

    messages: tuple[TurnMessage, ...]
    images: tuple[CheckedImage, ...] = ()
    skipped: tuple[SkippedMedia, ...] = ()

    @property
    def query(self) -> str:
        """What the user asks: all user text since the last assistant message.

        After a tool's result it is still the request that led to the tool call.
        """
        users: list[str] = []
        for message in reversed(self.messages):
            if message.role == "user":
                users.append(message.text)
            elif users:
                break
        return "\n".join(reversed(users)).strip()

    @property
    def pixels(self) -> tuple[Image.Image, ...]:
        """The images as pictures, in the order of their parts."""
        return tuple(image.pixels for image in self.images)

    @property
    def subjects(self) -> tuple[SubjectImage, ...]:
        """The images by reference, for verdicts."""
        return tuple(image.subject for image in self.images)

    def ask(self, question: str) -> Turn:
        """Return the conversation with its last user text replaced by a question about it.

        Everything up to and including the last image stays as it is, so that the question and
        the answer share the longest possible prompt prefix. After an assistant's or a tool's
        message the question becomes a user message of its own.
        """
        last = self.messages[-1]
        if last.role != "user":
            asked = TurnMessage("user", (TextPart(question),))
            return replace(self, messages=(*self.messages, asked))
        images = [i for i, part in enumerate(last.parts) if isinstance(part, ImagePart)]
        kept = last.parts[: images[-1] + 1] if images else ()
        asked = replace(last, parts=(*kept, TextPart(question)))
        return replace(self, messages=(*self.messages[:-1], asked))

    def with_system(self, text: str) -> Turn:
        """Return the conversation with a text added to its system message."""
        first, rest = self.messages[0], self.messages[1:]
        if first.role == "system":
            joined = replace(first, parts=(TextPart(f"{first.text}\n\n{text}".strip()),))
            return replace(self, messages=(joined, *rest))
        return replace(self, messages=(TurnMessage("system", (TextPart(text),)), *self.messages))

    def with_pixels(self, pixels: Sequence[Image.Image]) -> Turn:
        """Return the conversation with other pictures in the places of its images."""
        images = tuple(
            replace(image, pixels=other) for image, other in zip(self.images, pixels, strict=True)
        )
        return replace(self, images=images)

    def with_answer(self, text: str) -> Turn:
        """Return the conversation with an assistant's answer at its end."""
        answer = TurnMessage("assistant", (TextPart(text),))
        return replace(self, messages=(*self.messages, answer))

    def key(self) -> str:
        """Return the sha256 of the whole conversation: roles, text, tool calls, image hashes."""
        canonical = [
            [
                message.role,
                [
                    p.text if isinstance(p, TextPart) else {"image": self.images[p.index].sha256}
                    for p in message.parts
                ],
                [[call.name, call.arguments] for call in message.tool_calls],
                message.name,
            ]
            for message in self.messages
        ]
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def read_turn(
    messages: Sequence[BaseMessage],
    policy: ImagePolicy | None = None,
    *,
    strict: bool = False,
    fetch: Fetch = fetch_image,
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
