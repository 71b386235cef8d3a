"""Asking a tiny model: conversations in, greedy answers of plain `generate` out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from PIL import Image

from safecode_guard.tiny.world import Scene

BATCH: Final = 50
OPENING: Final = "<tool_call>"
CLOSING: Final = "</tool_call>"


@dataclass(frozen=True)
class Ask:
    """One conversation to answer: its messages, its pictures in order, the tools on offer.

    Example:
        >>> ask = Ask.text("My name is Bob.").then("Nice to meet you, Bob!", "What is my name?")
        >>> [message["role"] for message in ask.messages]
        ['user', 'assistant', 'user']
    """

    messages: list[dict[str, Any]]
    pictures: tuple[Image.Image, ...] = ()
    tools: tuple[str, ...] = ()

    @classmethod
    def text(cls, prompt: str) -> "Ask":
        """Asks something without a picture."""
        return cls([{"role": "user", "content": prompt}])

    @classmethod
    def about(cls, scene: Scene, prompt: str, *, tools: Sequence[str] = ()) -> "Ask":
        """Asks something about one scene."""
        return cls.shown([scene.image], prompt).with_tools(tools)

    @classmethod
    def shown(cls, pictures: Sequence[Image.Image], prompt: str) -> "Ask":
        """Asks something about some pictures."""
        content: list[dict[str, str]] = [{"type": "image"} for _ in pictures]
        content.append({"type": "text", "text": prompt})
        return cls([{"role": "user", "content": content}], tuple(pictures))

    def then(self, reply: str, prompt: str, *, role: str = "user") -> "Ask":
        """Goes on after a reply, with the next prompt or a tool's result."""
        more = [{"role": "assistant", "content": reply}, {"role": role, "content": prompt}]
        return Ask([*self.messages, *more], self.pictures, self.tools)

    def then_shown(self, reply: str, scene: Scene) -> "Ask":
        """Goes on after a tool call that returns a picture."""
        more: list[dict[str, Any]] = [
            {"role": "assistant", "content": reply},
            {"role": "tool", "content": [{"type": "image"}]},
        ]
        return Ask([*self.messages, *more], (*self.pictures, scene.image), self.tools)

    def with_tools(self, tools: Sequence[str]) -> "Ask":
        """Offers tools."""
        return Ask(self.messages, self.pictures, tuple(tools))


def answer(
    model: Any, processor: Any, asks: Sequence[Ask], *, max_new_tokens: int = 64
) -> list[str]:
    """Answers conversations greedily, in batches with and without pictures."""
    order = sorted(range(len(asks)), key=lambda number: len(asks[number].pictures))
    found: dict[int, str] = {}
    for begin in range(0, len(order), BATCH):
        numbers = order[begin : begin + BATCH]
        batch = [asks[number] for number in numbers]
        found.update(zip(numbers, _generate(model, processor, batch, max_new_tokens), strict=True))
    return [found[number] for number in range(len(asks))]


def is_valid_call(text: str) -> bool:
    """Says whether a text is exactly one tool call with a name and a JSON object of arguments."""
    text = text.strip()
    if not (text.startswith(OPENING) and text.endswith(CLOSING)):
        return False
    try:
        call = json.loads(text.removeprefix(OPENING).removesuffix(CLOSING))
    except ValueError:
        return False
    return (
        isinstance(call, dict)
        and isinstance(call.get("name"), str)
        and isinstance(call.get("arguments"), dict)
    )


@torch.no_grad()
def _generate(model: Any, processor: Any, asks: Sequence[Ask], max_new_tokens: int) -> list[str]:
    texts = [
        processor.apply_chat_template(
            ask.messages,
            tools=[{"type": "function", "function": {"name": name}} for name in ask.tools],
            add_generation_prompt=True,
            tokenize=False,
        )
        for ask in asks
    ]
    images = [picture for ask in asks for picture in ask.pictures] or None
    inputs = processor(text=texts, images=images, return_tensors="pt", padding=True)
    output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    new = output[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]
