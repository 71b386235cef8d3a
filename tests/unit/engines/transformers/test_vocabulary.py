from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.engines.transformers.vocabulary import TokenizerVocabulary
from tests import families

TOKENS = families.tokenizer("<image>")
VOCABULARY = TokenizerVocabulary(TOKENS, size=500)


def test_size_is_the_width_of_the_logits() -> None:
    assert VOCABULARY.size == 500
    assert TokenizerVocabulary(TOKENS).size == len(TOKENS)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_text_comes_back_as_it_went_in(text: str) -> None:
    ids = VOCABULARY.encode(text)
    if not VOCABULARY.special_ids.intersection(ids):
        assert VOCABULARY.decode(ids) == text


def test_special_tokens_are_left_out_and_spaces_kept() -> None:
    ids = VOCABULARY.encode("  unsafe .")
    marked = [TOKENS.bos_token_id, *ids, TOKENS.eos_token_id]
    assert VOCABULARY.decode(marked) == "  unsafe ."
    assert VOCABULARY.encode("safe")[0] not in VOCABULARY.special_ids


def test_special_and_end_ids() -> None:
    assert VOCABULARY.eos_ids == {TOKENS.eos_token_id}
    assert TOKENS.convert_tokens_to_ids("<image>") in VOCABULARY.special_ids
    assert TokenizerVocabulary(TOKENS, eos_ids=[5, 6]).eos_ids == {5, 6}


def test_equal_tables_have_equal_ids_and_others_do_not() -> None:
    assert VOCABULARY.id == TokenizerVocabulary(families.tokenizer("<image>")).id
    assert VOCABULARY.id != TokenizerVocabulary(families.tokenizer("<video>")).id
