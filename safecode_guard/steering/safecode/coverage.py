"""What the refusal lexicon is worth on a vocabulary: its first tokens, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safecode_guard.steering.safecode.trie import RefusalTrie
from safecode_guard.steering.safecode.words import beginning_with, first_word


@dataclass(frozen=True)
class Root:
    """A first token of refusals, in all its ways of being written."""

    text: str
    tokens: int
    """How many tokens write it: behind a space, behind a mark."""
    pushed: bool
    ordinary: float
    """Of the vocabulary's words that it begins, the share that begins no refusal."""


@dataclass(frozen=True)
class Coverage:
    """What a lexicon is worth on a vocabulary."""

    roots: tuple[Root, ...]
    unwritten: tuple[str, ...]
    """Phrases that cannot be written in the vocabulary's tokens."""
    uncovered: tuple[tuple[str, str], ...]
    """First words with their first token, where it is not pushed; what follows carries them."""

    @classmethod
    def of(cls, trie: RefusalTrie) -> Coverage:
        """Return the coverage of a trie's lexicon."""
        return cls(_roots(trie), tuple(phrase.text for phrase in trie.unwritten), _uncovered(trie))


def _roots(trie: RefusalTrie) -> tuple[Root, ...]:
    known = trie.vocabulary.known_words
    words = {
        first_word(spelling.text)
        for phrase in trie.lexicon.phrases
        for spelling in phrase.all_spellings()
    }
    found: dict[str, list[bool]] = {}
    for _, text, pushed in trie.roots():
        found.setdefault(text, []).append(pushed)
    roots = [
        Root(text, len(pushed), any(pushed), _ordinary(text, words, known))
        for text, pushed in found.items()
        if text
    ]
    return tuple(sorted(roots, key=lambda root: (not root.pushed, root.text)))


def _ordinary(text: str, words: set[str], known: Sequence[str]) -> float:
    """Return the share of the words beginning with a text that begin no refusal."""
    others = beginning_with(text, known)
    if not others:
        return 0.0
    refusing = sum(any(word.startswith(other) for word in words) for other in others)
    return 1 - refusing / len(others)


def _uncovered(trie: RefusalTrie) -> tuple[tuple[str, str], ...]:
    pushed, found = trie.shares([]), {}
    for phrase in trie.lexicon.phrases:
        ids = trie.spell(phrase)
        if phrase not in trie.unwritten and ids and ids[0] not in pushed:
            found[first_word(phrase.text)] = trie.vocabulary.decode(ids[:1])
    return tuple(sorted(found.items()))
