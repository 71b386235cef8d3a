"""What the pipeline asks of a vision-language model, and nothing else.

A model turns conversations into `Prompts`, prefills them into a `Branch`, and a branch yields
next-token logits step by step. Logits come with the ids of their candidates, so that a model that
serves only chosen candidates (an OpenAI-compatible server) fits behind the same protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, runtime_checkable

from PIL import Image
from torch import Tensor

from safecode_guard.models.families import Family
from safecode_guard.turns.turn import Turn

Tool = Mapping[str, Any]
"""A tool in OpenAI's form: ``{"type": "function", "function": {...}}``."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. ``None`` leaves the model's own generation config in force."""

    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_tokens: int = 512
    stop: tuple[str, ...] = ()


class Vocabulary(Protocol):
    """A tokenizer as far as steering and judging need it."""

    id: str
    """Identifies the token table: equal ids mean equal tables."""
    size: int
    """Width of the model's logits."""
    eos_ids: frozenset[int]
    special_ids: frozenset[int]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any special tokens added."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens left out, spaces as they are."""


FinishReason = Literal["stop", "length"]
"""Why an answer ended: it was complete, or its budget was used up."""


class Constraint(Protocol):
    """A grammar that one answer must follow."""

    @property
    def finished(self) -> bool:
        """Whether the answer is complete."""

    def mask(self) -> Tensor:
        """Return the tokens allowed next, bool [n]."""

    def accept(self, token: int) -> None:
        """Advance by the chosen token."""


class Prompts(Protocol):
    """Rows of encoded conversations; opaque but for their token ids."""

    @property
    def ids(self) -> list[list[int]]:
        """Token ids of each row, without padding."""

    def cut(self, lengths: Sequence[int]) -> Self:
        """Return the rows cut to their first ``lengths[i]`` tokens, images whole."""


class Branch(Protocol):
    """A batch of rows being decoded: caches, token history, next-token logits.

    ``logits`` is float32 [rows, n], the next-token logits after the last call; column j belongs
    to candidate ``candidates[j]``.
    """

    logits: Tensor
    candidates: Tensor

    @property
    def rows(self) -> int:
        """Number of rows."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to each row (int64 [rows]) and return the new logits [rows, n]."""

    def extend(self, blocks: Sequence[Sequence[int]]) -> Tensor:
        """Append a block of text tokens to each row, of any lengths, in one forward pass."""

    def fork(self) -> Branch:
        """Return an independent branch from here; cheap, nothing is computed again."""

    def select(self, rows: Sequence[int]) -> Branch:
        """Keep only these rows, in this order, and free the rest; returns itself."""

    def warp(self, scores: Tensor, rows: Sequence[int]) -> Tensor:
        """Apply the sampling parameters to scores [len(rows), n] of these rows."""


@runtime_checkable
class VisionLanguageModel(Protocol):
    """A local multimodal chat model with access to its logits."""

    @property
    def id(self) -> str:
        """Name and a digest of what identifies the weights; enters judge ids and cache keys."""

    @property
    def family(self) -> Family:
        """The record of the model's family."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's tokens."""

    def encode(self, turns: Sequence[Turn], *, tools: Sequence[Tool] = ()) -> Prompts:
        """Render and tokenise conversations, one row each.

        Raises:
            TemplateError: If the chat template refuses the layout; names the fix.
        """

    def prefill(self, prompts: Prompts, sampling: Sampling) -> Branch:
        """Run the prompts (left-padded) once and return a branch with their next-token logits."""

    def generate(self, turns: Sequence[Turn], sampling: Sampling) -> list[str]:
        """Return plain generated texts by the model's own ``generate``."""

    def working_size(self, image: Image.Image) -> tuple[int, int]:
        """Return (width, height) to which the model's preprocessing resizes an image."""

    def samples(self, sampling: Sampling) -> bool:
        """Return whether tokens are drawn at random under these parameters."""
