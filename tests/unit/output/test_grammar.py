from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from safecode_guard.engines.transformers.vocabulary import TokenizerVocabulary
from safecode_guard.errors import ConstraintError
from safecode_guard.output.grammar import Grammar, GrammarConstraint
from safecode_guard.output.tools import parse_answer
from safecode_guard.testing import ByteVocabulary

CORPUS = ['{"name": "run", "arguments": {"place": "cliff path", "speed": 12}}, "kind": "null"'] * 4


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    table = Tokenizer(models.BPE())
    table.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    table.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<eos>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    table.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=table, eos_token="<eos>")


@pytest.fixture(scope="module")
def vocabulary(tokenizer: PreTrainedTokenizerFast) -> TokenizerVocabulary:
    return TokenizerVocabulary(tokenizer, size=len(tokenizer) + 13)  # padded embeddings


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Cat(Strict):
    kind: Literal["cat"]
    lives: int = Field(ge=1, le=9)


class Dog(Strict):
    kind: Literal["dog"]
    name: str | None


class Home(Strict):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    rooms: list[bool] = Field(max_length=3)
    colours: dict[str, float] = Field(max_length=2)
    next: Home | None


class Plain(Strict):
    text: str
    number: float
    mode: Literal["slow", "fast"]


def accepts(grammar: Grammar, vocabulary: Any, text: str) -> bool:
    """Return whether a whole text, and nothing beyond it, follows a grammar."""
    constraint = grammar.constraint()
    for token in vocabulary.encode(text):
        if not constraint.mask()[token]:
            return False
        constraint.accept(token)
    return bool(constraint.mask()[sorted(vocabulary.eos_ids)[0]])


def walk(constraint: GrammarConstraint, vocabulary: Any, seed: int) -> str:
    """Write an answer of random allowed tokens; closes what it can after a while."""
    chance, written = random.Random(seed), list[int]()
    closing = [token for mark in '"}]0' for token in vocabulary.encode(mark)]
    closing += vocabulary.encode("null")
    while not constraint.finished and len(written) < 600:
        allowed = constraint.mask().nonzero().flatten().tolist()
        ends = [t for t in (*sorted(vocabulary.eos_ids), *closing) if t in allowed]
        hurried = len(written) > 60 and ends
        token = ends[0] if hurried else chance.choice(allowed)
        constraint.accept(token)
        written.append(token)
    assert constraint.finished
    return str(vocabulary.decode(written))


@pytest.mark.parametrize("model", [Plain, Home, list[Cat], dict[str, int], int, Literal["a", 3]])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_written_under_the_mask_follows_the_schema(
    model: Any, seed: int, vocabulary: TokenizerVocabulary
) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(model)
    grammar = Grammar.from_json_schema(adapter.json_schema(), vocabulary, max_string=8)
    text = walk(grammar.constraint(), vocabulary, seed)
    adapter.validate_json(text)


def test_mask_is_what_may_be_accepted(vocabulary: TokenizerVocabulary) -> None:
    grammar = Grammar.from_json_schema(Plain.model_json_schema(), vocabulary)
    tokens = vocabulary.encode('{"text": "a')
    for length in range(len(tokens) + 1):
        mask = _after(grammar, tokens[:length]).mask()
        assert mask.dtype == torch.bool
        assert mask.shape == (vocabulary.size,)
        table = range(len(vocabulary.tokenizer))
        taken = {t for t in table if _takes(_after(grammar, tokens[:length]), t)}
        allowed = set(mask.nonzero().flatten().tolist())
        # Where the bytes are forced, the mask keeps to the tokenizer's own way of splitting them.
        assert allowed == taken if length == len(tokens) else allowed <= taken
        assert length == len(tokens) or tokens[length] in allowed


def _after(grammar: Grammar, tokens: list[int]) -> GrammarConstraint:
    constraint = grammar.constraint()
    for token in tokens:
        constraint.accept(token)
    return constraint


def _takes(constraint: GrammarConstraint, token: int) -> bool:
    try:
        constraint.accept(token)
    except ConstraintError:
        return False
    return True


def test_complete_answer_allows_only_its_end(vocabulary: TokenizerVocabulary) -> None:
    constraint = Grammar.from_json_schema({"const": {"a": 1}}, vocabulary).constraint()
    eos = next(iter(vocabulary.eos_ids))
    assert not constraint.finished
    for token in vocabulary.encode('{"a": 1}'):
        assert not constraint.mask()[eos]
        constraint.accept(token)
    assert constraint.finished
    assert constraint.mask().nonzero().flatten().tolist() == [eos]
    constraint.accept(eos)
    assert constraint.finished


def test_open_ended_answer_is_finished_by_its_end_of_text(vocabulary: TokenizerVocabulary) -> None:
    constraint = Grammar.from_json_schema({"type": "integer"}, vocabulary).constraint()
    eos = next(iter(vocabulary.eos_ids))
    constraint.accept(vocabulary.encode("7")[0])
    assert (constraint.finished, bool(constraint.mask()[eos])) == (False, True)
    constraint.accept(eos)
    assert constraint.finished


def test_token_that_does_not_follow_is_an_error(vocabulary: TokenizerVocabulary) -> None:
    constraint = Grammar.from_json_schema({"type": "integer"}, vocabulary).constraint()
    with pytest.raises(ConstraintError, match="does not follow"):
        constraint.accept(vocabulary.encode("x")[0])


def test_answers_of_one_grammar_are_independent(vocabulary: TokenizerVocabulary) -> None:
    grammar = Grammar.from_json_schema({"const": "ab"}, vocabulary)
    one, two = grammar.constraint(), grammar.constraint()
    before = two.mask()
    one.accept(vocabulary.encode('"')[0])
    assert torch.equal(two.mask(), before)
    assert not torch.equal(one.mask(), before)


def test_strings_end_at_their_limit(vocabulary: TokenizerVocabulary) -> None:
    schema = {"type": "string"}
    short = Grammar.from_json_schema(schema, vocabulary, max_string=3)
    assert accepts(short, vocabulary, '"abc"')
    assert not accepts(short, vocabulary, '"abcd"')
    assert accepts(Grammar.from_json_schema(schema, vocabulary), vocabulary, f'"{"a" * 256}"')


def test_json_is_written_as_models_write_it_and_closed(vocabulary: TokenizerVocabulary) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
    grammar = Grammar.from_json_schema(schema, vocabulary)
    assert accepts(grammar, vocabulary, json.dumps({"a": 1, "b": 2}))
    assert not accepts(grammar, vocabulary, '{"a":1}')
    assert not accepts(grammar, vocabulary, '{ "a": 1}')
    assert not accepts(grammar, vocabulary, '{"c": 1}')


def test_refusal_is_one_more_way_to_answer(vocabulary: TokenizerVocabulary) -> None:
    schema = Home.model_json_schema()
    plain = Grammar.from_json_schema(schema, vocabulary)
    both = Grammar.from_json_schema(schema, vocabulary, allow_refusal=True)
    only = Grammar.refusal(vocabulary)
    home = '{"pet": {"kind": "cat", "lives": 9}, "rooms": [], "colours": {}, "next": null}'
    refusal = '{"refusal": "It is too steep."}'
    verdicts = [
        [accepts(grammar, vocabulary, text) for text in (home, refusal)]
        for grammar in (plain, both, only)
    ]
    assert verdicts == [[True, False], [True, True], [False, True]]
    assert not accepts(both, vocabulary, '{"refusal": ""}')


TOOLS = [
    {"type": "function", "function": {"name": "run", "parameters": Home.model_json_schema()}},
    {"type": "function", "function": {"name": "stop"}},
    {"type": "function", "function": {"name": "cut", "parameters": Plain.model_json_schema()}},
]
CALLS = {
    "run": '{"name": "run", "arguments": {"pet": {"kind": "dog", "name": null}, "rooms": [true], '
    '"colours": {}, "next": null}}',
    "stop": '{"name": "stop", "arguments": {}}',
    "cut": '{"name": "cut", "arguments": {"text": "a", "number": 1.5, "mode": "slow"}}',
}


@pytest.mark.parametrize(
    ("choice", "allowed"),
    [
        ("any", {"run", "stop", "cut"}),
        ("required", {"run", "stop", "cut"}),
        (True, {"run", "stop", "cut"}),
        ("cut", {"cut"}),
        ({"type": "function", "function": {"name": "run"}}, {"run"}),
    ],
)
def test_forced_tools_take_their_own_arguments_only(
    choice: Any, allowed: set[str], vocabulary: TokenizerVocabulary
) -> None:
    grammar = Grammar.from_tools(TOOLS, vocabulary, choice=choice)
    assert {name for name, text in CALLS.items() if accepts(grammar, vocabulary, text)} == allowed
    assert not accepts(grammar, vocabulary, '{"name": "stop", "arguments": {"x": 1}}')
    assert not accepts(grammar, vocabulary, '{"name": "cut", "arguments": {}}')
    assert not accepts(grammar, vocabulary, '{"refusal": "no"}')


@pytest.mark.parametrize("seed", range(3))
def test_forced_call_can_be_parsed(seed: int, vocabulary: TokenizerVocabulary) -> None:
    grammar = Grammar.from_tools(TOOLS, vocabulary, allow_refusal=True, max_string=8)
    answer = parse_answer(walk(grammar.constraint(), vocabulary, seed), forced=True)
    assert answer.invalid == ()
    assert len(answer.calls) + (answer.refusal is not None) == 1


@pytest.mark.parametrize("choice", ["auto", "none", None, False])
def test_choice_that_forces_nothing_has_no_grammar(
    choice: Any, vocabulary: TokenizerVocabulary
) -> None:
    with pytest.raises(ConstraintError, match="forces no call"):
        Grammar.from_tools(TOOLS, vocabulary, choice=choice)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"not": {"type": "string"}}, '"not"'),
        ({"type": "array", "uniqueItems": True}, '"uniqueItems"'),
        ({"properties": {"a": {"type": "array", "contains": {}}}}, '"contains"'),
        ({"type": "string", "format": "weird"}, "weird"),
        ({"$ref": "https://example.org/schema"}, "example.org"),
        ({"$ref": "#/$defs/missing"}, "missing"),
        ({"type": "thing"}, "thing"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"enum": []}, "Unsatisfiable"),
    ],
)
def test_what_cannot_be_followed_is_named(
    schema: dict[str, Any], named: str, vocabulary: TokenizerVocabulary
) -> None:
    with pytest.raises(ConstraintError) as caught:
        Grammar.from_json_schema(schema, vocabulary)
    assert named in str(caught.value)
    assert len(str(caught.value)) < 500


def test_logits_narrower_than_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    narrow = TokenizerVocabulary(tokenizer, size=len(tokenizer) - 5)
    mask = Grammar.from_json_schema({"type": "string"}, narrow).constraint().mask()
    assert mask.shape == (narrow.size,)


def test_byte_vocabulary_of_the_fakes_can_be_constrained() -> None:
    vocabulary = ByteVocabulary(['{"text": "'])
    adapter: TypeAdapter[Any] = TypeAdapter(Plain)
    grammar = Grammar.from_json_schema(adapter.json_schema(), vocabulary, max_string=8)
    adapter.validate_json(walk(grammar.constraint(), vocabulary, 0))


def test_slow_tokenizer_is_an_error() -> None:
    class Slow:
        id, size = "slow", 4
        eos_ids = special_ids = frozenset({0})

        def encode(self, text: str) -> list[int]:
            return []

        def decode(self, ids: Any) -> str:
            return ""

    with pytest.raises(ConstraintError, match="no fast tokenizer"):
        Grammar.from_json_schema({"type": "string"}, Slow())


@pytest.fixture
def without_llguidance(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    return


@pytest.mark.usefixtures("without_llguidance")
def test_missing_engine_names_the_extra(vocabulary: TokenizerVocabulary) -> None:
    make: Callable[..., Grammar] = Grammar.from_json_schema
    with pytest.raises(ConstraintError, match=r'pip install "safecode-guard\[tools\]"'):
        make({"type": "string"}, vocabulary)


def test_engine_is_imported_only_when_it_is_needed() -> None:
    assert "llguidance" not in vars(sys.modules[Grammar.__module__])
