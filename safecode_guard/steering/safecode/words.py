"""Which words of a vocabulary a piece of a word begins: whether a piece is worth a push.

"Désolé" is written "D", "és", "olé" by most tokenizers. Pushing "D" would raise every answer that
begins with D; of the words that begin with "Entschuld" nearly all are the apology.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

LIKELY: Final = 0.5
"""Share of words from which on a refusal is likely."""

_FIRST_WORD: Final = re.compile(r"[㐀-鿿]|[^\W\d_㐀-鿿]+")


def first_word(text: str) -> str:
    """Return the first word: letters up to a mark or space, or one Chinese character."""
    found = _FIRST_WORD.match(text)
    return found.group() if found else text


def share(fragment: str, wanted: Iterable[str], known: Sequence[str]) -> float:
    """Return the share of the known words beginning with a fragment that are wanted, in [0, 1].

    1 where nothing else begins with it, but 0 for less than two letters: of those the vocabulary
    only seems to know few.

    Args:
        fragment: The beginning of a word.
        wanted: Whole words that it is to begin.
        known: All words of the vocabulary, sorted.
    """
    if len(fragment) < 2:
        return 0.0
    others = beginning_with(fragment, known)
    if not others:
        return 1.0
    wanted = tuple(wanted)
    fitting = sum(any(w.startswith(o) or o.startswith(w) for w in wanted) for o in others)
    return fitting / len(others)


def beginning_with(fragment: str, known: Sequence[str]) -> Sequence[str]:
    """Return the words that begin with a fragment and go on, of all ``known`` ones, sorted."""
    start = bisect_left(known, fragment)
    end = bisect_left(known, fragment + "\U0010ffff", lo=start)
    found = known[start:end]
    return found[1:] if found and found[0] == fragment else found
