"""From a record to the steering of an answer: the one way to it, first time and restored."""

from __future__ import annotations

from safecode_guard.models.protocol import LogitsStrategy, Vocabulary
from safecode_guard.steering.safecode.guided import GuardedSteering, GuidedSteps, PaperSteering
from safecode_guard.steering.safecode.record import SafeCoDeRecord
from safecode_guard.steering.safecode.reference import (
    ForcedRefusal,
    LoosenedAnswer,
    phrases_to_force,
)
from safecode_guard.steering.safecode.trie import RefusalTrie
from safecode_guard.turns.turn import Turn


def steering_of(
    record: SafeCoDeRecord,
    *,
    trie: RefusalTrie | None,
    vocabulary: Vocabulary,
    second: Turn | None,
) -> LogitsStrategy:
    """Return the steering of one answer.

    Args:
        record: What is used.
        trie: Of the record's lexicon; None if it has none, and no token is pushed.
        vocabulary: The model's tokens.
        second: The turn with second views of its pictures, where this side makes them.
    """
    size, quirks = vocabulary.size, record.quirks
    if trie and "force_phrase" in quirks:
        phrases = phrases_to_force(trie, only_apologies="prefer_apologies" in quirks)
        return ForcedRefusal(record, phrases, second=second)
    if trie and record.recipe == "guarded":
        return GuardedSteering(record, size, trie, second=second)
    flat = trie.tokens(key_words_only="every_phrase_token" not in quirks) if trie else frozenset()
    if record.recipe == "reference" and record.direction == "suppress":
        return LoosenedAnswer(record, size, flat, vocabulary, second=second)
    if flat:
        return PaperSteering(record, size, flat, second=second)
    return GuidedSteps(record, size, second=second)
