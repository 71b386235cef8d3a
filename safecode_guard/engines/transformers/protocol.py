"""What the session of this engine asks of the model behind it: prompts, caches, branches.

A model turns conversations into `Prompts`, prefills them into a `Branch`, and a branch yields
next-token logits step by step. `TransformersModel` is the real one; a scripted one in
`safecode_guard.testing` runs the same session without weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self

from PIL import Image
from torch import Tensor

from safecode_guard.models.families import Family
from safecode_guard.models.protocol import Sampling, Tool, Vocabulary
from safecode_guard.turns.turn import Turn

if TYPE_CHECKING:
    from safecode_guard.engines.transformers.kept import KeptPrompts
    from safecode_guard.engines.transformers.seen import SeenPictures


class Prompts(Protocol):
    """Rows of encoded conversations; opaque but for their token ids."""

    @property
    def image_ids(self) -> frozenset[int]:
        """Tokens that stand for a piece of an image."""

    @property
    def ids(self) -> list[list[int]]:
        """Token ids of each row, without padding."""

    def cut(self, lengths: Sequence[int], *, width: int | None = None) -> Self:
        """Return the rows cut to their first ``lengths[i]`` tokens, images whole.

        Rows are padded on their left to ``width`` tokens, or to the longest of them.
        """


class Branch(Protocol):
    """A batch of rows being decoded: caches, token history, next-token logits.

    ``logits`` is float32 [rows, n], the next-token logits after the last call; column j belongs
    to candidate ``candidates[j]``.
    """

    logits: Tensor
    candidates: Tensor
    hidden: Tensor | None
    """float [rows, d], states at the last position, once a layer is watched."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    def watch(self, layer: int | None) -> None:
        """Keep the last position's states of a layer from the next forward pass on."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to each row (int64 [rows]) and return the new logits [rows, n]."""

    def extend(self, blocks: Sequence[Sequence[int]]) -> Tensor:
        """Append a block of text tokens to each row, of any lengths, in one forward pass."""

    def fork(self) -> Branch:
        """Return an independent branch from here; cheap, nothing is computed again."""

    @property
    def nbytes(self) -> int:
        """Bytes that the branch holds; forks share what they have in common."""

    @property
    def can_crop(self) -> bool:
        """Whether rows can be cut back."""

    def crop(self, lengths: Sequence[int], *, width: int | None = None) -> Branch:
        """Keep the first ``lengths[i]`` tokens of each row, text alone cut off; returns itself.

        Rows are padded on their left to ``width`` tokens, or to the longest of them. The logits
        of a row that was cut are void until it is continued.
        """

    def select(self, rows: Sequence[int]) -> Branch:
        """Keep only these rows, in this order, and free the rest; returns itself."""

    def join(self, other: Branch) -> Branch:
        """Append the rows of another branch, which is used up by this; returns itself."""

    def warp(self, scores: Tensor, rows: Sequence[int]) -> Tensor:
        """Apply the sampling parameters to scores [len(rows), n] of these rows."""


class CachedModel(Protocol):
    """A local multimodal chat model whose caches are in reach."""

    @property
    def id(self) -> str:
        """Name and a digest of what identifies the weights."""

    @property
    def family(self) -> Family:
        """The record of the model's family."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's tokens."""

    def encode(
        self,
        turns: Sequence[Turn],
        *,
        tools: Sequence[Tool] = (),
        seen: SeenPictures | None = None,
    ) -> Prompts:
        """Render and tokenise conversations, one row each.

        Pictures that were ``seen`` need not be processed again.

        Raises:
            TemplateError: If the chat template refuses the layout; names the fix.
        """

    def prefill(
        self, prompts: Prompts, sampling: Sampling, *, hidden_layer: int | None = None
    ) -> Branch:
        """Run the prompts (left-padded) once and return a branch with their next-token logits."""

    @property
    def kept(self) -> KeptPrompts | None:
        """Prompts kept for later turns; None: it keeps none."""

    def resume(self, branch: Branch, sampling: Sampling) -> Branch:
        """Return a fork of a branch that goes on under other sampling parameters."""

    def working_size(self, image: Image.Image) -> tuple[int, int]:
        """Return (width, height) to which the model's preprocessing resizes an image."""

    def samples(self, sampling: Sampling) -> bool:
        """Return whether tokens are drawn at random under these parameters."""
