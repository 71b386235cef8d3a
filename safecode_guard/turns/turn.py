"""A `Turn`: a conversation as the model and the judge see it, with its images checked.

LangChain messages become a turn in `safecode_guard.turns.reading`; from there on nothing knows
LangChain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from PIL import Image

from safecode_guard.turns.images import CheckedImage
from safecode_guard.verdict import SkippedMedia, SubjectImage

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

    all_image_indices = image_indices


@dataclass(frozen=True)
class Turn:
    """A conversation up to the answer that is to be given."""

    messages: tuple[TurnMessage, ...]
    images: tuple[CheckedImage, ...] = ()
    skipped: tuple[SkippedMedia, ...] = ()
    left_out: tuple[SkippedMedia, ...] = ()
    """Pictures beyond the policy's limit: the oldest, which nobody is shown."""

    @property
    def left_out_images(self) -> int:
        """How many pictures stand before ``images`` in the conversation and are left out."""
        return len(self.left_out)

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
