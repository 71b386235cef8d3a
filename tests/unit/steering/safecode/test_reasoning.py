"""Where a visible answer begins, and that guided tokens are spent on it."""

from __future__ import annotations

import functools

import pytest
import torch
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from safecode_guard.engines.transformers.vocabulary import TokenizerVocabulary
from safecode_guard.steering.safecode.reasoning import Reasoning, visible
from tests.unit.steering.contexts import context, safecode, step
from tests.unit.steering.vocabularies import byte_level

THOUGHT = "<think>\nThey ask for help.\n</think>\n\n"


@functools.cache
def with_markers(*markers: str, special: bool) -> TokenizerVocabulary:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level().tokenizer.backend_tokenizer, eos_token="<|end|>"
    )
    tokenizer.add_tokens([AddedToken(marker, special=special) for marker in markers])
    return TokenizerVocabulary(tokenizer)


VOCABULARIES = {
    "text": byte_level,
    "tokens": lambda: with_markers("<think>", "</think>", special=False),
    "special": lambda: with_markers("<think>", "</think>", special=True),
}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("No.", "No."),
        ("<think>Hm.</think>No.", "No."),
        (" \n<thinking>Hm.</thinking> No.", " No."),
        ("Hm.</think>No.", "No."),
        ("<think>Hm.", ""),
        ("", ""),
    ],
)
def test_the_visible_answer_of_a_text(text, answer):
    assert visible(text) == answer


@pytest.mark.parametrize("kind", VOCABULARIES)
@pytest.mark.parametrize("blank", ["", "\n"])
def test_the_answer_begins_behind_the_reasoning(kind, blank):
    vocabulary = VOCABULARIES[kind]()
    reasoning = Reasoning(vocabulary)
    ids = vocabulary.encode(f"{blank}{THOUGHT}I'm sorry")
    end = reasoning.end(ids)
    assert vocabulary.decode(ids[end:]).strip() == "I'm sorry"
    inside = [reasoning.end(ids[:k]) for k in range(1 + len(vocabulary.encode(blank)), end)]
    assert inside
    assert set(inside) == {None}
    assert reasoning.end(vocabulary.encode("I'm sorry")) == 0
    assert reasoning.begin(vocabulary.encode("I'm sorry")) is None
    begun = vocabulary.decode(ids[reasoning.begin(ids) :])
    assert begun.strip().startswith("They ask")


def test_channels_are_reasoning():
    markers = ("<|channel|>", "<|message|>")
    vocabulary = with_markers(*markers, special=True)
    reasoning, encode = Reasoning(vocabulary), vocabulary.encode
    thought = encode("<|channel|>analysis<|message|>They ask.")
    answer = encode("<|channel|>final<|message|>")
    assert reasoning.end(thought) is None
    assert reasoning.end([*thought, *answer]) == len(thought) + len(answer)
    assert reasoning.end([*answer, *encode("I")]) == len(answer)


@pytest.mark.parametrize("kind", VOCABULARIES)
@pytest.mark.parametrize("reasoning", ["skip", "steer"])
def test_guided_tokens_are_spent_on_the_visible_answer(kind, reasoning):
    vocabulary = VOCABULARIES[kind]()
    made = safecode(reasoning=reasoning).prepare(context(vocabulary))
    logits = torch.randn((2, vocabulary.size), generator=torch.Generator().manual_seed(3))
    ids = vocabulary.encode(THOUGHT + "The dog is on the beach and")
    end = made.trie.reasoning.end(ids)
    begun = made.trie.reasoning.begin(ids)
    assert not any(made.done(ids[:k]) for k in range(end + 5))
    assert made.done(ids)
    first = made.adjust(step(logits, ids[:begun]))
    assert torch.equal(first, logits[0]) == (reasoning == "skip")
    late = made.adjust(step(logits, ids[: end - 1]))
    assert torch.equal(late, logits[0])
    assert torch.equal(made.adjust(step(logits, ids[:end])), made.adjust(step(logits)))
