"""The refusal trie on tokenizers of several kinds, against the naive search over phrases."""

from __future__ import annotations

import functools
import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safecode_guard.errors import PolicyError
from safecode_guard.steering.safecode.leads import may_become_lead
from safecode_guard.steering.safecode.refusals import Phrase, RefusalLexicon
from safecode_guard.steering.safecode.trie import RefusalTrie, flat, spread
from safecode_guard.steering.safecode.words import first_word
from tests.reference import steering as naive
from tests.unit.steering.vocabularies import byte_level, characters, sentence_piece, whole_words

LEXICON = RefusalLexicon.load()
VOCABULARIES = {"bytes": byte_level, "pieces": sentence_piece, "words": whole_words}
unhurried = settings(deadline=None, max_examples=50)


@functools.cache
def built(kind):
    return RefusalTrie.build(LEXICON, VOCABULARIES[kind]())


@functools.cache
def english():
    return RefusalTrie.build(RefusalLexicon.load(["en"]), byte_level())


class Wrapped:
    """Another vocabulary but for what a subclass says."""

    def __init__(self, vocabulary):
        self._vocabulary = vocabulary

    def __getattr__(self, name):
        return getattr(self._vocabulary, name)


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_every_prefix_of_every_phrase_has_the_naive_children(kind):
    trie, phrases = built(kind), naive.openings(LEXICON, VOCABULARIES[kind]())
    prefixes = {tuple(p.ids[:k]) for p in phrases.phrases for k in range(len(p.ids) + 1)}
    sample = sorted(prefixes)[:: max(1, len(prefixes) // 150)]
    for prefix in [(), *sample]:
        for root_weight in (1.0, 0.25):
            expected = naive.shares(phrases, list(prefix), root_weight)
            assert trie.shares(prefix, root_weight=root_weight) == pytest.approx(expected)


@unhurried
@given(data=st.data())
def test_another_text_is_a_dead_end(data):
    vocabulary, trie = byte_level(), english()
    text = data.draw(st.sampled_from(["I", "I'm", "Sorry", "As an AI", "I will", ""]))
    so_far = vocabulary.encode(text)
    children = set(trie.shares(so_far))
    if not so_far:  # pieces of first words go on to a refusal ("'m" to "'my apologies"), unpushed
        children |= {token for token, _, _ in trie.roots()}
    other = data.draw(st.integers(0, vocabulary.size - 1))
    if other in children or (not so_far and may_become_lead(vocabulary.decode([other]))):
        return
    after = data.draw(st.lists(st.integers(0, vocabulary.size - 1), max_size=4))
    assert trie.shares([*so_far, other, *after]) == {}


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't",
        "i'm sorry, but I can't",
        "I’m sorry, but I can’t",
        "Es tut mir leid, aber ich kann",
        "很抱歉，我无法",
        "作为一个人工智能，我不能",
    ],
)
@pytest.mark.parametrize("lead", ["", " ", "\n", "\n\n"])
def test_a_phrase_of_many_tokens_is_followed_to_its_end(kind, text, lead):
    vocabulary = VOCABULARIES[kind]()
    trie = built(kind)
    ids = vocabulary.encode(lead + text)
    blank = sum(1 for k in range(len(ids)) if not vocabulary.decode(ids[: k + 1]).strip())
    for k in range(blank, len(ids)):
        written = vocabulary.decode(ids[: k + 1]).strip()
        piece = len(written.rstrip("\ufffd")) < len(first_word(text))
        assert piece or ids[k] in trie.shares(ids[:k]), written


def test_whitespace_before_the_answer_changes_nothing():
    vocabulary, trie = byte_level(), built("bytes")
    newline = vocabulary.encode("\n")
    assert trie.shares([*newline, *newline]) == trie.shares([])
    inside = [*vocabulary.encode("I"), *newline]
    assert trie.shares(inside) == {}


def test_an_ordinary_i_is_left_alone_once_the_text_has_gone_another_way():
    vocabulary, trie = byte_level(), built("bytes")
    assert trie.shares(vocabulary.encode("I"))
    assert trie.shares(vocabulary.encode("I see")) == {}
    assert trie.shares(vocabulary.encode("You can see that I")) == {}


def test_what_a_stem_holds_back_falls_to_the_token_that_leaves_it():
    vocabulary, trie = byte_level(), built("bytes")
    for text in ("I cannot", "I'm sorry, but", "Sorry, but I", "As an AI, I", "I am unable to"):
        ids = vocabulary.encode(text)
        for root_weight in (0.0, 0.3, 1.0):
            given = [trie.shares(ids[:k], root_weight=root_weight)[ids[k]] for k in range(len(ids))]
            assert sum(given) == pytest.approx(len(ids)), (text, given)
            assert min(given) >= 0


def test_at_the_root_i_is_a_stem_and_so_is_what_an_ordinary_opening_shares():
    lexicon = RefusalLexicon((Phrase("I cannot", "I"), Phrase("Sorry, I can't"), Phrase("Nope")))
    for spared, expected in ((), 1.0), (("Sorry to hear",), 0.5):
        trie = RefusalTrie.build(replace(lexicon, spared=spared), byte_level())
        root = trie.shares([], root_weight=0.5)
        assert root[byte_level().encode("I")[0]] == 0.5
        assert root[byte_level().encode("Sorry")[0]] == expected
    assert sum(
        trie.shares(ids[:k], root_weight=0.5)[ids[k]]
        for ids in [byte_level().encode("Sorry,")]
        for k in range(len(ids))
    ) == len(byte_level().encode("Sorry,"))


def test_a_weak_stem_gets_half_in_either_direction_and_the_rest_falls_due():
    vocabulary = byte_level()
    lexicon = RefusalLexicon((Phrase("This is not something", "This is", True), Phrase("I shall")))
    trie = RefusalTrie.build(lexicon, vocabulary)
    ids = vocabulary.encode("This is not")
    for root_weight, stem in ((1.0, 0.5), (0.5, 0.5), (0.2, 0.2)):
        given = [trie.shares(ids[:k], root_weight=root_weight)[ids[k]] for k in range(len(ids))]
        assert given[0] == stem
        assert sum(given) == pytest.approx(len(ids))
    assert trie.tokens() == frozenset(
        token for text in ("I shall", " I shall", "i shall") for token in vocabulary.encode(text)
    )


def test_a_piece_of_a_first_word_is_pushed_where_it_begins_little_else():
    class Known(Wrapped):
        known_words = ("De", "Dear", "Do", "Désert", "Désolé", "Désormais", "Entschuldigungen")

    trie = RefusalTrie.build(
        RefusalLexicon((Phrase("Désolé"), Phrase("Entschuldigung"))), Known(characters())
    )
    assert {characters().decode([t]) for t in trie.shares([])} == set()
    after = {
        text: {characters().decode([t]) for t in trie.shares(characters().encode(text))}
        for text in ("D", "Dé", "Dés", "Déso", "Désol", "E", "Entsc")
    }
    assert after["D"] == after["Dé"] == set()  # of Désert, Désolé, Désormais one refuses
    assert (after["Dés"], after["Déso"], after["Désol"]) == ({"o"}, {"l"}, {"é"})
    assert (after["E"], after["Entsc"]) == ({"n", "N"}, {"h"})


@pytest.mark.parametrize(
    "lead",
    ["**", '"', "“", "- ", "> ", "## ", "1. ", "🚫 ", "⚠️ ", "Answer: ", "**Answer:** ", "\n\n"],
)
@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_a_refusal_is_followed_behind_what_may_stand_before_it(kind, lead):
    vocabulary, trie = VOCABULARIES[kind](), built(kind)
    ids = vocabulary.encode(lead + "I'm sorry, but I can't")
    before = sum("I" not in vocabulary.decode(ids[: k + 1]) for k in range(len(ids)))
    assert all(ids[k] in trie.shares(ids[:k]) for k in range(before, len(ids)))
    assert trie.written(ids[:before]) == 0
    assert trie.written(ids) == len(ids) - before
    assert trie.inside(ids[: before + 2])


def test_a_label_that_was_none_is_text():
    vocabulary, trie = byte_level(), built("bytes")
    assert trie.written(vocabulary.encode("Answer")) == 0
    for text in ("Answers vary", "Answering this", "**Note"):
        ids = vocabulary.encode(text)
        assert trie.written(ids) > 0
        assert trie.shares(ids) == {}


@unhurried
@given(text=st.text(max_size=12), more=st.text(max_size=6))
def test_what_is_written_is_never_taken_back(text, more):
    vocabulary, trie = byte_level(), english()
    ids = vocabulary.encode(text) + vocabulary.encode(more)
    counts = [trie.written(ids[:k]) for k in range(len(ids) + 1)]
    assert counts == sorted(counts)


def test_unknown_words_are_never_pushed():
    vocabulary = whole_words()
    trie = RefusalTrie.build(LEXICON, vocabulary)
    assert trie.tokens().isdisjoint(vocabulary.special_ids)
    written = {vocabulary.decode([t]) for t in trie.tokens()}
    assert written == {"I", "am", "cannot", "sorry"}


def test_a_model_that_can_write_no_refusal_is_refused():
    with pytest.raises(PolicyError, match="No refusal phrase"):
        RefusalTrie.build(RefusalLexicon.load(["de"]), whole_words())


def test_tokens_beyond_the_logits_are_left_out():
    vocabulary = byte_level()
    whole = built("bytes").tokens()

    class Narrow(Wrapped):
        size = sorted(whole)[len(whole) // 2]

    narrow = RefusalTrie.build(LEXICON, Narrow(vocabulary)).tokens()
    assert narrow
    assert max(narrow) < Narrow.size


def test_the_flat_set_of_key_words():
    vocabulary = byte_level()
    trie = RefusalTrie.build(RefusalLexicon.load(["en"]), vocabulary)
    words = {vocabulary.decode([t]) for t in trie.tokens(key_words_only=True)}
    assert {"I", " sorry", "Sorry", " cannot", " unable", "As", "'t"} <= words
    assert words.isdisjoint({",", " to", " but", " help", " am", "'m", " can", " an", " a"})
    assert trie.tokens(key_words_only=True) < trie.tokens()
    assert {",", " to", " but"} <= {vocabulary.decode([t]) for t in trie.tokens()}


def test_spread_finds_columns_by_id():
    shares = {3: 1.0, 7: 0.5}
    assert spread(shares, torch.arange(9), size=9).tolist() == [0, 0, 0, 1, 0, 0, 0, 0.5, 0]
    assert spread(shares, torch.tensor([7, 1, 3]), size=9).tolist() == [0.5, 0, 1]
    assert spread({}, torch.tensor([7, 1, 3]), size=9).tolist() == [0, 0, 0]
    assert flat([3, 4]) == {3: 1.0, 4: 1.0}


def test_it_is_cheap_on_a_large_vocabulary():
    vocabulary = byte_level(filler=151_000)
    assert vocabulary.size > 151_000
    start = time.process_time()
    trie = RefusalTrie.build(LEXICON, vocabulary)
    built = time.process_time() - start
    ids, so_far = torch.arange(vocabulary.size), vocabulary.encode("I'm")
    start = time.process_time()
    for _ in range(20):
        spread(trie.shares(so_far), ids, size=vocabulary.size)
    applied = (time.process_time() - start) / 20
    assert built < 2.0  # measured: 0.11 s
    assert applied < 0.01  # measured: 0.5 ms a row
