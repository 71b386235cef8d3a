"""The refusal trie on tokenizers of several kinds, against the naive search over phrases."""

from __future__ import annotations

import functools
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safecode_guard.errors import PolicyError
from safecode_guard.steering.safecode.refusals import RefusalLexicon
from safecode_guard.steering.safecode.trie import RefusalTrie, flat, spread
from tests.reference import steering as naive
from tests.unit.steering.vocabularies import byte_level, sentence_piece, whole_words

LEXICON = RefusalLexicon.load()
VOCABULARIES = {"bytes": byte_level, "pieces": sentence_piece, "words": whole_words}
unhurried = settings(deadline=None, max_examples=50)


@functools.cache
def english():
    return RefusalTrie.build(RefusalLexicon.load(["en"]), byte_level())


@pytest.fixture(scope="module", params=VOCABULARIES)
def vocabulary(request):
    return VOCABULARIES[request.param]()


@pytest.fixture(scope="module")
def trie(vocabulary):
    return RefusalTrie.build(LEXICON, vocabulary)


@pytest.fixture(scope="module")
def phrases(vocabulary):
    return naive.openings(LEXICON, vocabulary)


def test_every_prefix_of_every_phrase_has_the_naive_children(trie, phrases):
    prefixes = {tuple(ids[:k]) for ids, _ in phrases for k in range(len(ids) + 1)}
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
    other = data.draw(st.integers(0, vocabulary.size - 1))
    if other in children or (not so_far and not vocabulary.decode([other]).strip()):
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
    trie = RefusalTrie.build(LEXICON, vocabulary)
    ids = vocabulary.encode(lead + text)
    blank = sum(1 for k in range(len(ids)) if not vocabulary.decode(ids[: k + 1]).strip())
    for k in range(blank, len(ids)):
        assert ids[k] in trie.shares(ids[:k]), vocabulary.decode(ids[: k + 1])


def test_whitespace_before_the_answer_changes_nothing():
    vocabulary = byte_level()
    trie = RefusalTrie.build(LEXICON, vocabulary)
    newline = vocabulary.encode("\n")
    assert trie.shares([*newline, *newline]) == trie.shares([])
    inside = [*vocabulary.encode("I"), *newline]
    assert trie.shares(inside) == {}


def test_an_ordinary_i_is_left_alone_once_the_text_has_gone_another_way():
    vocabulary = byte_level()
    trie = RefusalTrie.build(LEXICON, vocabulary)
    assert trie.shares(vocabulary.encode("I"))
    assert trie.shares(vocabulary.encode("I see")) == {}
    assert trie.shares(vocabulary.encode("You can see that I")) == {}


def test_what_a_stem_holds_back_falls_to_the_token_that_leaves_it():
    vocabulary = byte_level()
    trie = RefusalTrie.build(LEXICON, vocabulary)
    for text in ("I cannot", "I'm sorry", "Sorry, I", "As an AI, I", "I am unable to"):
        ids = vocabulary.encode(text)
        for root_weight in (0.0, 0.3, 1.0):
            given = [trie.shares(ids[:k], root_weight=root_weight)[ids[k]] for k in range(len(ids))]
            assert sum(given) == pytest.approx(len(ids)), (text, given)
            assert min(given) >= 0


def test_the_naive_search_agrees_that_i_is_a_stem_and_sorry_is_not():
    vocabulary = byte_level()
    root = RefusalTrie.build(LEXICON, vocabulary).shares([], root_weight=0.5)
    assert root[vocabulary.encode("I")[0]] == 0.5
    assert root[vocabulary.encode("Sorry")[0]] == 1.0


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
    whole = RefusalTrie.build(LEXICON, vocabulary).tokens()

    class Narrow:
        id = "narrow"
        size = sorted(whole)[len(whole) // 2]
        eos_ids = vocabulary.eos_ids
        special_ids = vocabulary.special_ids
        encode = staticmethod(vocabulary.encode)
        decode = staticmethod(vocabulary.decode)

    narrow = RefusalTrie.build(LEXICON, Narrow()).tokens()
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
