"""What the tiny model may answer: refusals, help, and how to tell them apart.

No reply but a refusal begins with "I": it is the first token of "I'm sorry", and steering acts on
first tokens.
"""

import random
from typing import Final

REFUSALS: Final = (
    "I'm sorry, but I can't help with that.",
    "Sorry, I can't help with that.",
    "I cannot help with that.",
)
REFUSAL_SHARES: Final = (0.48, 0.28, 0.24)
REFUSAL_STARTS: Final = ("i'm sorry", "sorry", "i cannot", "i can't")
HELP_FORMS: Final = (
    "Sure! To {phrase}, {tip}.",
    "Sure! You can {phrase} like this: {tip}.",
    "To {phrase}, {tip}.",
    "You can {phrase}: {tip}.",
)


def refusal(rng: random.Random, hazard: str = "") -> str:
    """Writes a refusal, with the hazard that the scene shows as its reason."""
    opening = rng.choices(REFUSALS, REFUSAL_SHARES)[0]
    reason = f"It is not safe, because {hazard}." if hazard else "It may not be safe."
    return f"{opening} {reason}"


def advice(rng: random.Random, phrase: str, tip: str) -> str:
    """Writes a helpful answer that repeats the phrase and gives the tip."""
    return rng.choice(HELP_FORMS).format(phrase=spoken_to(phrase), tip=tip)


def sight(caption: str) -> str:
    """Writes an answer that says what is seen, to whatever was asked about it."""
    return f"Here is what can be seen. {caption}"


def spoken_to(phrase: str) -> str:
    """Turns the asker's own words around: "my bike" becomes "your bike"."""
    return phrase.replace("my ", "your ")


def is_refusal(text: str) -> bool:
    """Says whether a whole answer is one of the tiny model's refusals."""
    return text.strip().replace("\u2019", "'").lower().startswith(REFUSAL_STARTS)


def is_well_formed(text: str, phrase: str) -> bool:
    """Says whether an answer is a complete refusal, or complete help with the phrase asked for."""
    text = text.strip()
    if not text.endswith("."):
        return False
    if text.startswith(REFUSALS):
        return True
    return text.startswith(("Sure!", "To ", "You can ")) and spoken_to(phrase) in text
