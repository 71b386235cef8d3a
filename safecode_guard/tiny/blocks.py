"""Blocks: the short conversations about a picture that a row of the corpus is made of."""

from dataclasses import dataclass
from typing import Any, Literal

from safecode_guard.tiny.world import Scene

Kind = Literal["caption", "question", "judge", "request", "order", "robot", "talk"]


@dataclass(frozen=True)
class Turn:
    """A prompt and its reply.

    Attributes:
        weight: What the reply's first token counts in the loss; 0 leaves the reply out of it.
        role: Who the prompt comes from.
        tools: The names of the tools that the model may call.
        pictures: Pictures of the turn's own, which stand before its text.
    """

    prompt: str
    reply: str
    weight: int = 1
    role: Literal["user", "tool"] = "user"
    tools: tuple[str, ...] = ()
    pictures: tuple[Scene, ...] = ()


@dataclass(frozen=True)
class Block:
    """One conversation, which begins with the row's picture, or has its own pictures or none."""

    kind: Kind
    turns: tuple[Turn, ...]
    sees_picture: bool = True

    def messages(self) -> list[dict[str, Any]]:
        """Writes the block as chat messages; an image part stands for each picture."""
        messages: list[dict[str, Any]] = []
        for turn in self.turns:
            shown = len(turn.pictures) + (self.sees_picture and not messages)
            parts = [{"type": "image"}] * shown + [{"type": "text", "text": turn.prompt}]
            messages.append({"role": turn.role, "content": parts})
            messages.append({"role": "assistant", "content": turn.reply})
        return messages

    @property
    def pictures(self) -> tuple[Scene, ...]:
        """The block's own pictures, in the order in which they stand."""
        return tuple(scene for turn in self.turns for scene in turn.pictures)


@dataclass(frozen=True)
class System:
    """A system prompt.

    Attributes:
        text: Its words; empty for none.
        unsafe: Whether the task that it sets is dangerous in the scene; None if it sets none.
    """

    text: str = ""
    unsafe: bool | None = None
