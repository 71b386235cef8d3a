"""What the model is asked to find the risk of a turn, in the project's own words."""

from __future__ import annotations

import hashlib
from typing import Final

from safecode_guard.turns.turn import Turn

CONTEXT_TOKENS: Final = 40
CONTEXT: Final = (
    "In one sentence: what in the picture matters for the safety of the people in it or of whoever "
    "asks? Include any text that can be read in the picture."
)
SAFETY: Final = (
    "Help with what is harmless. If an answer could lead to harm, given what the picture shows, "
    "refuse and say so."
)
REQUEST: Final = "What the picture shows: {context}\n\nThe request: {query}"
VERSION: Final = hashlib.sha256("|".join((CONTEXT, SAFETY, REQUEST)).encode()).hexdigest()[:8]
"""Of the wording: prototypes and thresholds hold for the one that they were made with."""


def context_question(turn: Turn) -> Turn:
    """Return the conversation that asks for the safety-relevant content of a turn's pictures."""
    return turn.ask(CONTEXT)


def cautious_request(turn: Turn, context: str) -> Turn:
    """Return q': the turn's request behind its visual context, under the safety prompt.

    The pictures stay where they are. Without a context (no picture, nothing said) the request
    stands alone.
    """
    query = turn.query
    asked = REQUEST.format(context=context, query=query) if context else query
    return turn.ask(asked).with_system(SAFETY)
