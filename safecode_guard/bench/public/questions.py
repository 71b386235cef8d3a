"""Questions about a dialogue that was had, and strictly read replies to them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

LETTERS: Final = "ABCDEFGH"
_LETTER: Final = re.compile(r"[\s(\"'*]*([A-H])(?=\s*$|[.,:;)*\"'])", re.IGNORECASE)
_WORD: Final = re.compile(r"[\s(\"'*]*(true|false)\b", re.IGNORECASE)
_ASKED: Final = (
    "Here is a conversation between a user and an assistant. Read it and answer the question below."
    "\n\n{dialogue}\n\n[Question]\n{question}\n\n{how}"
)

Kind = Literal["mcq", "tf"]


@dataclass(frozen=True)
class Question:
    """A question with one right answer: a letter, or ``TRUE`` or ``FALSE``."""

    text: str
    right: str
    options: tuple[str, ...] = ()
    """Empty: it is to be answered with true or false."""

    @property
    def kind(self) -> Kind:
        """Multiple choice, or true or false."""
        return "mcq" if self.options else "tf"

    def about(self, turns: Sequence[str], answers: Sequence[str]) -> str:
        """Return what is asked of the model about a dialogue."""
        said = zip(turns, answers, strict=True)
        dialogue = "\n\n".join(f"[User]\n{user}\n\n[Assistant]\n{text}" for user, text in said)
        lettered = (
            f"{letter}. {text}" for letter, text in zip(LETTERS, self.options, strict=False)
        )
        how = (
            "\n".join([*lettered, "", "Answer with the letter alone."])
            if self.options
            else "Answer with True or False alone."
        )
        return _ASKED.format(dialogue=dialogue, question=self.text, how=how)

    def is_right(self, reply: str) -> bool | None:
        """Return whether a reply is right; None if it does not begin with an answer."""
        found = (_LETTER if self.options else _WORD).match(reply)
        return None if found is None else found[1].upper() == self.right
