"""Where the visible answer of a reasoning model begins: behind ``<think> ... </think>``.

A form of reasoning is a pair of markers. Where a tokenizer has them as tokens of their own they
are found by their ids (those that are special leave no text behind); otherwise by their text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from safecode_guard.models.protocol import Vocabulary

_BY_TEXT: Final = (("<think>", "</think>"), ("<thinking>", "</thinking>"))
_BY_TOKENS: Final = (
    *_BY_TEXT,
    ("[THINK]", "[/THINK]"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)


def visible(text: str) -> str:
    """Return the visible answer of a text: what stands behind its reasoning, "" within it.

    The opening marker may be missing: some prompts end with it.
    """
    bare = text.lstrip()
    for opening, closing in _BY_TOKENS:
        if bare.startswith(opening) or closing in bare:
            return bare.partition(closing)[2]
    return text


@dataclass(frozen=True)
class _Tokens:
    """A form whose markers are tokens of their own."""

    opening: tuple[int, ...]
    closing: tuple[int, ...]

    def begins(self, so_far: Sequence[int]) -> bool:
        """Return whether a text begins with one of the markers, or part of one."""
        return any(
            tuple(so_far[: len(marker)]) == marker[: len(so_far)]
            for marker in (self.opening, self.closing)
        )

    def begin(self, so_far: Sequence[int]) -> int | None:
        """Return the number of tokens of the opening marker, once it is whole."""
        return len(self.opening) if tuple(so_far[: len(self.opening)]) == self.opening else None

    def end(self, so_far: Sequence[int]) -> int | None:
        """Return the number of tokens up to the end of the closing marker."""
        width, tokens = len(self.closing), tuple(so_far)
        for at, token in enumerate(tokens):
            if token == self.closing[0] and tokens[at : at + width] == self.closing:
                return at + width
        return None


@dataclass(frozen=True)
class _Text:
    """A form whose markers are ordinary text."""

    vocabulary: Vocabulary
    opening: str
    closing: str

    def begins(self, so_far: Sequence[int]) -> bool:
        """Return whether a text begins with the opening marker, or part of it."""
        text = self.vocabulary.decode(so_far[: 2 * len(self.opening)]).lstrip()
        return text.startswith(self.opening) or (text != "" and self.opening.startswith(text))

    def begin(self, so_far: Sequence[int]) -> int | None:
        """Return the number of tokens up to the end of the opening marker, once it is whole."""
        return self._until(self.opening, so_far[: 2 * len(self.opening)])

    def end(self, so_far: Sequence[int]) -> int | None:
        """Return the number of tokens up to the end of the closing marker."""
        return self._until(self.closing, so_far)

    def _until(self, marker: str, so_far: Sequence[int]) -> int | None:
        def written(count: int) -> bool:
            return marker in self.vocabulary.decode(so_far[:count])

        if not written(len(so_far)):
            return None
        return bisect_left(range(len(so_far)), True, key=written)


class Reasoning:
    """The forms of reasoning that a vocabulary can write.

    Example:
        >>> Reasoning(vocabulary).end(vocabulary.encode("<think>Well"))      # doctest: +SKIP
        >>> Reasoning(vocabulary).end(vocabulary.encode("Well"))             # doctest: +SKIP
        0
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Look up which markers are tokens."""
        tokens = [_tokens(vocabulary, *pair) for pair in _BY_TOKENS]
        self._forms: list[_Tokens | _Text] = [form for form in tokens if form]
        self._forms += [
            _Text(vocabulary, *pair)
            for pair, form in zip(_BY_TOKENS, tokens, strict=True)
            if form is None and pair in _BY_TEXT
        ]
        self._blank = frozenset(i for text in ("\n", " ", "\n\n") for i in vocabulary.encode(text))

    def end(self, so_far: Sequence[int]) -> int | None:
        """Return how many tokens stand before the visible answer; None while it has not begun."""
        blank, form = self._form(so_far)
        if form is None:
            return 0
        end = form.end(so_far[blank:])
        return None if end is None else blank + end

    def begin(self, so_far: Sequence[int]) -> int | None:
        """Return how many tokens stand before the reasoning itself; None if there is none yet."""
        blank, form = self._form(so_far)
        begun = form.begin(so_far[blank:]) if form else None
        return None if begun is None else blank + begun

    def _form(self, so_far: Sequence[int]) -> tuple[int, _Tokens | _Text | None]:
        """Return the number of blank tokens that a text begins with, and its form of reasoning."""
        blank = next((i for i, t in enumerate(so_far) if t not in self._blank), len(so_far))
        after = so_far[blank:]
        return blank, next((f for f in self._forms if after and f.begins(after)), None)


def _tokens(vocabulary: Vocabulary, opening: str, closing: str) -> _Tokens | None:
    """Return a form by its ids, if they are tokens of its own."""
    ids = [tuple(vocabulary.encode(marker)) for marker in (opening, closing)]
    own = all(len(i) == 1 or not vocabulary.special_ids.isdisjoint(i) for i in ids)
    return _Tokens(*ids) if own else None
