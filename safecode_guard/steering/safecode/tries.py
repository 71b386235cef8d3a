"""The tries that were built already, so that each is built once."""

from __future__ import annotations

from safecode_guard.models.protocol import Vocabulary
from safecode_guard.steering.safecode.refusals import RefusalLexicon
from safecode_guard.steering.safecode.trie import RefusalTrie


class Tries:
    """Refusal tries by lexicon and vocabulary, each built at its first use.

    A strategy keeps one, and so does an engine that restores strategies from their records.

    Example:
        >>> tries = Tries()
        >>> tries.of(lexicon, vocabulary) is tries.of(lexicon, vocabulary)      # doctest: +SKIP
        True
    """

    def __init__(self) -> None:
        self._built: dict[tuple[str, str], RefusalTrie] = {}

    def of(self, lexicon: RefusalLexicon, vocabulary: Vocabulary) -> RefusalTrie:
        """Return the trie of a lexicon's phrases in a vocabulary's tokens."""
        key = (lexicon.digest, vocabulary.id)
        if key not in self._built:
            self._built[key] = RefusalTrie.build(lexicon, vocabulary)
        return self._built[key]
