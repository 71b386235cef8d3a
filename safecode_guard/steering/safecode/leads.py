"""What may stand before the first word of an answer: markdown, quotes, bullets, emoji, "Answer:".

Steering begins behind it. A lead is told by its text, so it may be any tokens: "**", '> "', an
emoji of four bytes. Only for marks that a tokenizer writes into one token with the word behind
them ('"I') the trie needs spellings of its own, `MARKS`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from safecode_guard.models.protocol import Vocabulary

BLANKS: Final = ("", " ", "\n")
"""What may stand directly before a word; after a newline SentencePiece writes it without a mark."""
MARKS: Final = ('"', "“", "'", "‘", "«", "「", "*", "_", "(", ">", ":", "：")
"""Marks that some tokenizer writes into one token with the word behind them."""
MOST_LEAD_TOKENS: Final = 16
"""A lead that is longer is no lead: guidance must come to an end."""

_HALF_CHARACTER: Final = "\N{REPLACEMENT CHARACTER}"
_LABELS: Final = (
    *("Answer", "Final Answer", "Response", "Reply", "Assistant", "AI", "A"),
    *("Antwort", "Réponse", "Respuesta", "回答", "答案", "答", "助手"),
)
_MARKS: Final = re.compile(r"[\W_]*")
_LABEL: Final = rf"(?:{'|'.join(_LABELS)})[ *_]*[:：\n]"
_LEAD: Final = re.compile(rf"[\W_]*(?:{_LABEL}[\W_]*)?(?:\d{{1,2}}[.)][\W_]*)?")


def is_lead(text: str) -> bool:
    """Return whether a text is a whole lead, with no word of the answer yet; "" is one."""
    return not text.endswith(_HALF_CHARACTER) and _LEAD.fullmatch(text) is not None


def may_become_lead(text: str) -> bool:
    """Return whether a text is a lead, or the beginning of one: "**Ans", half of an emoji."""
    rest = without_marks(whole_characters(text)).rstrip(" *_.)")
    label = any(name.startswith(rest) for name in _LABELS)
    return label or (rest.isdecimal() and len(rest) <= 2) or is_lead(text)


def without_marks(text: str) -> str:
    """Return a text from its first letter or digit on."""
    return text[_marks(text) :]


def without_lead(text: str) -> str:
    """Return a text from its first word behind its leads on: "1. **Answer:** No" is "No"."""
    while (found := _LEAD.match(text)) and found.end():
        text = text[found.end() :]
    return text


def whole_characters(text: str) -> str:
    """Return a text without the halves of characters at its end."""
    return text.rstrip(_HALF_CHARACTER)


class Lead(NamedTuple):
    """The lead of a text."""

    length: int
    """In tokens."""
    over: bool
    """A word has begun behind it; False while the text may yet turn out to be a lead."""


def lead_of(vocabulary: Vocabulary, so_far: Sequence[int]) -> Lead:
    """Return the lead of a text in tokens; once it is over, nothing that follows changes it."""
    length = 0
    for count in range(1, min(len(so_far), MOST_LEAD_TOKENS) + 1):
        text = vocabulary.decode(so_far[:count])
        if is_lead(text):
            length = count
        elif not may_become_lead(text):
            return Lead(length, over=True)
    return Lead(length, over=len(so_far) >= MOST_LEAD_TOKENS)


def _marks(text: str) -> int:
    found = _MARKS.match(text)
    return found.end() if found else 0
