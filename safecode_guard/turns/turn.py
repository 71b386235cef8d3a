"""A `Turn`: a conversation as the model and the judge see it, with its images checked.

LangChain messages become a turn in `safecode_guard.turns.reading`; from there on nothing knows
LangChain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

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
class Carried:
    """A block of a provider's own state, proven to hold no media."""

    block: Mapping[str, Any]
    at: int
    """How many of the message's parts stand before it."""
    covers: int = 0
    """How many parts, from there on, say what the block says: it goes back out in their place."""


@dataclass(frozen=True)
class State:
    """What goes back out with a message that is made again, and is shown to no judge.

    Neither are local models shown it. Reasoning with its signature, calls of a provider's own
    tools and their like are needed by the provider's next step, and by nobody else.
    """

    carried: tuple[Carried, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """``additional_kwargs``, proven to hold no media."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Of ``response_metadata``, what says in whose form the blocks are."""
    id: str | None = None
    failed: bool = False
    """The tool reported an error."""
    plain: bool = True
    """The content was one text and not a list of blocks."""


_NO_STATE: Final = State()


@dataclass(frozen=True)
class TurnMessage:
    """One message of the conversation."""

    role: Role
    parts: tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    unshown: tuple[int, ...] = ()
    """Indices of images in a tool's artifact: they are judged, and no model is shown them."""
    state: State = field(default=_NO_STATE, compare=False, repr=False)

    @property
    def text(self) -> str:
        """The message's text, its runs joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def image_indices(self) -> tuple[int, ...]:
        """Indices of the images that the model is shown, in order."""
        return tuple(part.index for part in self.parts if isinstance(part, ImagePart))

    @property
    def judged_indices(self) -> tuple[int, ...]:
        """Indices of all images of the message, those that no model is shown at the end."""
        return self.image_indices + self.unshown

    def with_parts(self, parts: tuple[Part, ...]) -> TurnMessage:
        """Return the message with other parts, and without the state that belonged to them."""
        return replace(self, parts=parts, state=replace(self.state, carried=()))


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
        asked = last.with_parts((*kept, TextPart(question)))
        return replace(self, messages=(*self.messages[:-1], asked))

    def with_system(self, text: str) -> Turn:
        """Return the conversation with a text added to its system message."""
        first, rest = self.messages[0], self.messages[1:]
        if first.role == "system":
            added = TextPart(f"\n\n{text}" if first.parts else text)
            joined = first.with_parts((*first.parts, added))
            return replace(self, messages=(joined, *rest))
        return replace(self, messages=(TurnMessage("system", (TextPart(text),)), *self.messages))

    def with_pixels(
        self, pixels: Sequence[Image.Image], *, views: Sequence[str | None] | None = None
    ) -> Turn:
        """Return the conversation with other pictures in the places of its images.

        Args:
            pixels: The pictures.
            views: What tells each from its image's own pixels; None: nothing does.
        """
        named = [None] * len(self.images) if views is None else views
        images = tuple(
            image.with_pixels(other, view=view)
            for image, other, view in zip(self.images, pixels, named, strict=True)
        )
        return replace(self, images=images)

    def with_answer(self, text: str) -> Turn:
        """Return the conversation with an assistant's answer at its end."""
        answer = TurnMessage("assistant", (TextPart(text),))
        return replace(self, messages=(*self.messages, answer))

    def key(self) -> str:
        """Return the sha256 of the whole conversation: roles, text, tool calls, image hashes."""
        canonical = [self._canonical(message) for message in self.messages]
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), default=repr)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _canonical(self, message: TurnMessage) -> list[Any]:
        parts = [
            part.text if isinstance(part, TextPart) else self._identity(part.index)
            for part in message.parts
        ]
        calls = [[call.id, call.name, _typed(call.arguments)] for call in message.tool_calls]
        seldom = [message.tool_call_id, [self._identity(index) for index in message.unshown]]
        return [message.role, parts, calls, message.name, *(seldom if any(seldom) else ())]

    def _identity(self, index: int) -> dict[str, Any]:
        image = self.images[index]
        return {"image": image.sha256, **({"frame": image.frame} if image.frame else {})}


def _typed(value: Any) -> Any:
    """Return data whose JSON differs wherever the data does: 1 and "1" are different keys."""
    if isinstance(value, Mapping):
        return {f"{type(k).__name__}:{k}": _typed(item) for k, item in value.items()}
    return [_typed(item) for item in value] if isinstance(value, list | tuple) else value
