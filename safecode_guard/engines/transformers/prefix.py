"""One prefill for question and answer: the prompt prefix that both share, image included.

An answer's prompt and the judge's question about it begin with the same tokens up to the last
image. That prefix is prefilled once; the question continues a fork of it, the answer the prefix
itself. Second views are prefilled later, for the answers that contrast, and joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from safecode_guard.engines.transformers.protocol import Branch, Prompts


@dataclass(eq=False)
class Prefix:
    """The prefilled beginnings of some prompts, one row each."""

    branch: Branch
    ids: list[list[int]]
    """Token ids of the whole prompts."""
    lengths: list[int]
    """Tokens of each prompt that are prefilled."""
    width: int
    """Tokens of each row, its padding included."""

    @property
    def blocks(self) -> list[list[int]]:
        """What each prompt goes on with."""
        return [ids[n:] for ids, n in zip(self.ids, self.lengths, strict=True)]

    def shared(self, index: int, ids: Sequence[int], pictures: frozenset[int]) -> int:
        """Return how many tokens a prompt shares with a row, the pictures among them.

        0 if there is a picture in what either of them goes on with.
        """
        own = self.lengths[index]
        length = min(own, shared_length(self.ids[index], ids))
        rest = {*self.ids[index][length:own], *ids[length:]}
        return 0 if pictures.intersection(rest) else length

    def only(self, rows: Sequence[int]) -> Prefix:
        """Return some rows; the others are freed."""
        branch = self.branch
        if list(rows) != list(range(branch.rows)):
            branch = branch.select(rows)
        ids, lengths = [self.ids[i] for i in rows], [self.lengths[i] for i in rows]
        return Prefix(branch, ids, lengths, self.width)

    def joined(self, other: Prefix) -> Prefix:
        """Return the rows of both, which are used up by this."""
        width = max(self.width, other.width)
        for part in (self, other):
            if part.width != width:
                part.branch.crop(part.lengths, width=width)
        branch = self.branch.join(other.branch)
        return Prefix(branch, self.ids + other.ids, self.lengths + other.lengths, width)


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


def image_end(ids: Sequence[int], pictures: frozenset[int]) -> int:
    """Return how many leading tokens of a prompt hold all of its pictures."""
    places = [i for i, token in enumerate(ids) if token in pictures]
    return places[-1] + 1 if places else 0
