"""The refusal trie on published tokenizers; see `make test-real`."""

from __future__ import annotations

import functools

import pytest

from safecode_guard.steering.safecode.refusals import RefusalLexicon
from safecode_guard.steering.safecode.trie import RefusalTrie
from safecode_guard.steering.safecode.words import first_word
from tests.real.packages import TOKENIZERS, vocabulary
from tests.real.texts import HARMLESS, LEADS, REFUSALS

PUBLISHED = pytest.mark.parametrize("name", TOKENIZERS)
LANGUAGES = ("en", "de", "fr", "es", "zh")
FOLLOWED = 3
"""Tokens of a refusal that was not copied from the lexicon that must be pushed."""


@functools.cache
def trie(name: str, *languages: str) -> RefusalTrie:
    return RefusalTrie.build(RefusalLexicon.load(languages or None), known(name))


@functools.cache
def known(name: str):
    return vocabulary(name)


def given(
    name: str, text: str, *, root_weight: float = 1.0, languages=()
) -> list[tuple[str, float]]:
    """Return the tokens of a whole answer from its reasoning's end on, each with its share."""
    found, ids = trie(name, *languages), known(name).encode(text)
    start = found.reasoning.end(ids)
    assert start is not None, text
    ids = ids[start:]
    shares = [
        found.shares(ids[:k], root_weight=root_weight).get(ids[k], 0.0) for k in range(len(ids))
    ]
    return [(known(name).decode(ids[: k + 1]), share) for k, share in enumerate(shares)]


def visible(name: str, lead: str, text: str, languages=()) -> list[float]:
    """Return the shares of an answer's tokens from the one with its first letter on.

    Pieces of the first word that begin other words as well may be silent; they are left out.
    """
    before = "".join(lead.rpartition("</think>")[2].split())
    shares = []
    for written, share in given(name, lead + text, languages=languages):
        written = "".join(written.split()).rstrip("\ufffd")
        whole = len(written) - len(before) >= len(first_word(text))
        if not before.startswith(written) and (share or whole):
            shares.append(share)
    return shares


@PUBLISHED
def test_no_root_of_one_letter_but_i(name):
    for lexicon in ((), *((language,) for language in LANGUAGES)):
        for _, text, pushed in trie(name, *lexicon).roots():
            letter = len(text) == 1 and not "㐀" <= text <= "鿿"
            assert not (pushed and letter) or text in "Ii", text
            assert not pushed or text not in {"D", "L", "T", "Des", "Dis", "Ent", "Mal", "Per"}


@PUBLISHED
@pytest.mark.parametrize("lead", LEADS)
def test_every_phrase_of_the_lexicon_is_followed_to_its_end(name, lead):
    for language in LANGUAGES:
        for phrase in RefusalLexicon.load([language]).phrases:
            shares = visible(name, LEADS[lead], phrase.text, (language,))
            assert shares, phrase
            assert all(shares), (phrase.text, shares)


@PUBLISHED
@pytest.mark.parametrize("lead", LEADS)
def test_refusals_in_other_words_are_caught_at_their_beginning(name, lead):
    texts = [(language, text) for language, found in REFUSALS.items() for text in found]
    assert len(texts) >= 60
    for language, text in texts:
        shares = visible(name, LEADS[lead], text, (language,))
        assert all(shares[:FOLLOWED]), (text, shares)


@PUBLISHED
def test_no_harmless_opening_gets_a_full_share(name):
    assert len(HARMLESS) >= 70
    for text in HARMLESS:
        for written, share in given(name, text, root_weight=0.5):
            assert share <= 0.5, (text, written, share)
