"""One prefill for question and answer: the prompt prefix that both share, image included.

An answer's prompt and the judge's question about it begin with the same tokens up to the last
image. That prefix is prefilled once; the question continues a fork of it, the answer the prefix
itself. Second views are prefilled later, for the answers that contrast, and joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from safecode_guard.engines.transformers.protocol import Prompts


def shared_length(answer: Sequence[int], question: Sequence[int]) -> int:
    """Return how many leading tokens two prompts share.

    At least one token is left to each side, since a prefix is only of use if something follows
    it that yields logits. Equal tokens say nothing of the pixels: the caller pairs prompts that
    show the same images.
    """
    limit = min(len(answer), len(question)) - 1
    pairs = zip(answer[:limit], question[:limit], strict=False)
    return max(0, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)))


def covers_images(prompts: Prompts, lengths: Sequence[int]) -> bool:
    """Return whether the first ``lengths[i]`` tokens of each row hold all of its image tokens."""
    return all(
        not prompts.image_ids.intersection(ids[length:])
        for ids, length in zip(prompts.ids, lengths, strict=True)
    )
