"""Encoded prompts: the processor's output, left-padded, and how to cut it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import torch
from torch import Tensor

PER_TOKEN: Final = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "mm_token_type_ids",
    "cross_attention_mask",
)
"""Inputs with one entry per token, [rows, tokens, ...]; all others belong to the images."""


@dataclass(frozen=True, eq=False)
class EncodedPrompts:
    """Rows of encoded conversations, left-padded, with the inputs of their images."""

    inputs: Mapping[str, Any]
    pad_id: int
    image_ids: frozenset[int] = frozenset()
    """Tokens that stand for a piece of an image."""

    @property
    def ids(self) -> list[list[int]]:
        """Token ids of each row, without padding."""
        rows = zip(self.inputs["input_ids"], self._real, strict=True)
        return [ids[real].tolist() for ids, real in rows]

    @property
    def counts(self) -> list[int]:
        """Number of tokens of each row, without padding."""
        return [int(n) for n in self._real.sum(-1)]

    @property
    def has_images(self) -> bool:
        """Whether any row shows an image."""
        return "pixel_values" in self.inputs

    def cut(self, lengths: Sequence[int], *, width: int | None = None) -> Self:
        """Return the rows cut to their first ``lengths[i]`` tokens, images whole.

        Args:
            lengths: Tokens to keep of each row.
            width: Tokens to which each row is padded on its left; None: the longest's.

        Raises:
            ValueError: If a length is not within its row, or cuts into an image.
        """
        for row, length in zip(self.ids, lengths, strict=True):
            if not 0 < length <= len(row) or self.image_ids.intersection(row[length:]):
                raise ValueError(f"cannot cut a row of {len(row)} tokens to {length}: images whole")
        kept = {
            key: self._padded(
                self.inputs[key],
                lengths,
                fill=self.pad_id if key == "input_ids" else 0,
                width=width or max(lengths),
            )
            for key in PER_TOKEN
            if key in self.inputs
        }
        return replace(self, inputs={**self.inputs, **kept})

    def _padded(self, values: Tensor, lengths: Sequence[int], *, fill: int, width: int) -> Tensor:
        """Take the first tokens of each row and pad them on the left, [rows, width, ...]."""
        shape = (len(lengths), width, *values.shape[2:])
        out = torch.full(shape, fill, dtype=values.dtype, device=values.device)
        for i, (row, real, length) in enumerate(zip(values, self._real, lengths, strict=True)):
            out[i, shape[1] - length :] = row[real][:length]
        return out

    @property
    def _real(self) -> Tensor:
        return torch.as_tensor(self.inputs["attention_mask"]).bool()  # [rows, tokens]
