"""What the rows of two encodings have in common, and whether it holds every image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from safecode_guard.engines.transformers.protocol import Prompts


def common_prefix(a: Prompts, b: Prompts) -> list[int]:
    """Return how many leading tokens the rows of two encodings share, row by row of ``b``.

    At least one token is left to each side, since a prefix is only of use if something follows
    it that yields logits. Equal tokens say nothing of the pixels: the caller pairs rows that
    show the same images.
    """
    return [_shared(left, right) for left, right in zip(a.ids, b.ids, strict=False)]


def covers_images(prompts: Prompts, lengths: Sequence[int]) -> bool:
    """Return whether the first ``lengths[i]`` tokens of each row hold all of its image tokens."""
    image_ids: frozenset[int] = getattr(prompts, "image_ids", frozenset())
    return all(
        not image_ids.intersection(ids[length:])
        for ids, length in zip(prompts.ids, lengths, strict=True)
    )


def _shared(left: Sequence[int], right: Sequence[int]) -> int:
    limit = min(len(left), len(right)) - 1
    pairs = zip(left[:limit], right[:limit], strict=False)
    return max(0, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)))
