"""Answers that must follow a JSON schema: a mask of the tokens that may come next.

The grammar engine is llguidance, an optional dependency: ``pip install "safecode-guard[tools]"``.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import torch
from torch import Tensor

from safecode_guard.errors import ConstraintError
from safecode_guard.models.protocol import Tool, Vocabulary
from safecode_guard.output.schemas import prepare_schema, refusal_schema, with_refusal
from safecode_guard.output.tools import tool_schema

if TYPE_CHECKING:
    from types import ModuleType

MAX_STRING: Final = 1024
_STYLE: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as ``json.dumps`` writes it, which is what models have seen most."""


class Grammar:
    """A compiled grammar over one vocabulary; gives a constraint for each answer.

    Example:
        >>> grammar = Grammar.from_json_schema(schema, model.vocabulary)    # doctest: +SKIP
        >>> constraint = grammar.constraint()                               # doctest: +SKIP
        >>> logits.masked_fill(~constraint.mask(), float("-inf"))           # doctest: +SKIP
    """

    def __init__(self, schema: Mapping[str, Any], vocabulary: Vocabulary) -> None:
        """Compile a schema as it is; see `from_json_schema` for one that is made fit first.

        Raises:
            ConstraintError: If it cannot be compiled, or llguidance is not installed.
        """
        self.vocabulary = vocabulary
        self.schema = dict(schema)
        llguidance = _llguidance()
        source = llguidance.LLMatcher.grammar_from_json_schema(
            json.dumps(self.schema), overrides=_STYLE
        )
        limits = llguidance.LLParserLimits(verbose_errors=False)
        table: Any = vocabulary  # hashable, which the protocol does not say
        tokenizer = _compile_vocabulary(table)
        self._start = llguidance.LLMatcher(tokenizer, source, log_level=0, limits=limits)
        if self._start.is_error():
            raise _schema_error(self._start.get_error())

    @classmethod
    def from_json_schema(
        cls,
        schema: Mapping[str, Any],
        vocabulary: Vocabulary,
        *,
        allow_refusal: bool = False,
        max_string: int = MAX_STRING,
        max_integer: int | None = None,
    ) -> Self:
        """Return the grammar of one JSON value that follows a schema.

        Args:
            schema: A JSON schema; ``$ref`` into itself is fine.
            vocabulary: The model's.
            allow_refusal: Also allow ``{"refusal": "..."}`` instead.
            max_string: Longest string where the schema sets no limit of its own, in characters.
            max_integer: Largest absolute integer; None leaves integers alone.

        Raises:
            ConstraintError: If the schema uses what the grammar engine cannot follow; names it.
        """
        whole = with_refusal(schema) if allow_refusal else schema
        return cls(
            prepare_schema(whole, max_string=max_string, max_integer=max_integer), vocabulary
        )

    @classmethod
    def from_tools(
        cls,
        tools: Sequence[Tool],
        vocabulary: Vocabulary,
        *,
        choice: Any = "any",
        allow_refusal: bool = False,
        max_string: int = MAX_STRING,
        max_integer: int | None = None,
    ) -> Self:
        """Return the grammar of one forced tool call, as JSON with ``name`` and ``arguments``.

        Args:
            tools: The tools on offer, in OpenAI's form.
            vocabulary: The model's.
            choice: ``any``, or a tool's name; what forces nothing (``auto``) has no grammar.
            allow_refusal: Also allow ``{"refusal": "..."}`` instead.
            max_string: As for `from_json_schema`.
            max_integer: As for `from_json_schema`.

        Raises:
            ConstraintError: If the choice forces no call or names a tool that is not on offer, or
                if a tool's parameters cannot be followed.
        """
        schema = tool_schema(tools, choice)
        if schema is None:
            raise ConstraintError(
                f"Tool choice {choice!r} forces no call, so there is no grammar for it.",
                hint="Use 'any' or a tool's name; with 'auto' the text is left free and parsed.",
            )
        return cls.from_json_schema(
            schema,
            vocabulary,
            allow_refusal=allow_refusal,
            max_string=max_string,
            max_integer=max_integer,
        )

    @classmethod
    def refusal(cls, vocabulary: Vocabulary, *, max_string: int = MAX_STRING) -> Self:
        """Return the grammar of the refusal branch alone: ``{"refusal": "..."}``."""
        return cls.from_json_schema(refusal_schema(), vocabulary, max_string=max_string)

    def constraint(self, max_tokens: int | None = None) -> GrammarConstraint:
        """Return a constraint at its beginning, for one answer.

        Args:
            max_tokens: The answer's budget. When three quarters of it are used up, strings are
                ended at the next place where they may end, so that the JSON comes out whole.
        """
        matcher = self._start.deep_copy()
        if max_tokens is None:
            return GrammarConstraint(matcher, self.vocabulary)
        table: Any = self.vocabulary  # hashable, which the protocol does not say
        return GrammarConstraint(
            matcher, self.vocabulary, closing_after=max_tokens * 3 // 4, closers=_closers(table)
        )


class GrammarConstraint:
    """The state of one answer under a grammar."""

    def __init__(
        self,
        matcher: Any,
        vocabulary: Vocabulary,
        *,
        closing_after: int | None = None,
        closers: Tensor | None = None,
    ) -> None:
        self._matcher = matcher
        self._size = vocabulary.size
        self._eos = sorted(vocabulary.eos_ids)
        self._ended = False
        self._closers = closers
        self._left = closing_after

    @property
    def finished(self) -> bool:
        """Whether the answer is complete and nothing but its end may follow."""
        return self._ended or bool(self._matcher.is_stopped())

    def mask(self) -> Tensor:
        """Return the tokens allowed next, bool [n]: only the end of text once it is complete.

        Raises:
            ConstraintError: If the grammar can go on with no token of this vocabulary.
        """
        allowed = torch.zeros(self._size, dtype=torch.bool)
        if self.finished:
            allowed[self._eos] = True
            return allowed
        packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._raise_if_broken()
        bits = np.unpackbits(packed, bitorder="little")[: self._size]
        allowed[: len(bits)] = torch.from_numpy(bits.astype(np.bool_))
        if not bool(allowed.any()):
            raise ConstraintError(
                "The grammar cannot go on with any token of this model.",
                hint="The schema asks for characters that the tokenizer does not have.",
            )
        return self._closing(allowed)

    def _closing(self, allowed: Tensor) -> Tensor:
        """Return only what ends a string, late in the budget and where that is allowed."""
        if self._closers is None or self._left is None or self._left > 0:
            return allowed
        closing = allowed & self._closers
        return closing if bool(closing.any()) else allowed

    def accept(self, token: int) -> None:
        """Advance by the chosen token.

        Raises:
            ConstraintError: If the grammar does not allow it here.
        """
        if self.finished and token in self._eos:
            self._ended = True
            return
        if not self._matcher.consume_token(token):
            raise ConstraintError(
                f"Token {token} does not follow the forced schema.",
                hint="Choose tokens under mask() only.",
            )
        self._ended = self._ended or token in self._eos
        if self._left is not None:
            self._left -= 1

    def _raise_if_broken(self) -> None:
        if self._matcher.is_error():
            raise ConstraintError(
                f"The grammar engine gave up: {_first_line(self._matcher.get_error())}.",
                hint="Simplify the schema.",
            )


def _llguidance() -> ModuleType:
    try:
        import llguidance
        import llguidance.hf
    except ImportError as error:
        raise ConstraintError(
            "Forced schemas and tools need llguidance, which is not installed.",
            hint='Run: pip install "safecode-guard[tools]"',
        ) from error
    module: ModuleType = llguidance
    return module


@functools.lru_cache(maxsize=4)
def _compile_vocabulary(vocabulary: Any) -> Any:
    """Return the engine's form of a vocabulary (up to a second for a large one, so it is kept).

    It comes from a fast tokenizer (``vocabulary.tokenizer``), or from ``vocabulary.token_bytes``,
    the bytes of each token in order.
    """
    llguidance = _llguidance()
    tokenizer: Any = getattr(vocabulary, "tokenizer", None)
    pieces = getattr(vocabulary, "token_bytes", None)
    eos = sorted(vocabulary.eos_ids)
    if pieces is not None:
        wrapper = llguidance.TokenizerWrapper(_Pieces(vocabulary, pieces))
        return llguidance.LLTokenizer(wrapper, eos_token=eos)
    if not getattr(tokenizer, "is_fast", False):
        raise ConstraintError(
            f"Vocabulary {vocabulary.id[:16]!r} has no fast tokenizer to compile a grammar for.",
            hint="Load the model with a fast tokenizer (use_fast=True, a tokenizer.json).",
        )
    width = max(vocabulary.size, len(tokenizer))
    return llguidance.hf.from_tokenizer(tokenizer, n_vocab=width, eos_token=eos)


@functools.lru_cache(maxsize=4)
def _closers(vocabulary: Any) -> Tensor:
    """Return the tokens that begin with a quotation mark, bool [n]."""
    closers = torch.zeros(vocabulary.size, dtype=torch.bool)
    for token in range(vocabulary.size):
        closers[token] = vocabulary.decode([token]).startswith('"')
    return closers


class _Pieces:
    """What llguidance asks of a tokenizer that is no Hugging Face one."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, pieces: Sequence[bytes]) -> None:
        self.eos_token_id = min(vocabulary.eos_ids)
        self.special_token_ids = sorted(vocabulary.special_ids)
        self.tokens = list(pieces)
        self._vocabulary = vocabulary

    def __call__(self, text: str) -> list[int]:
        return self._vocabulary.encode(text)


def _schema_error(report: str) -> ConstraintError:
    """Return the error for a schema that cannot be compiled, with the keywords at fault."""
    keywords = re.search(r"Unimplemented keys: \[(.*?)\]", report)
    if keywords:
        return ConstraintError(
            f"The schema uses keywords that cannot be followed: {keywords[1]}.",
            hint="Leave them out, and check for them after parsing.",
        )
    return ConstraintError(
        f"The schema cannot be compiled: {_first_line(report)}.",
        hint="Change that part of the schema.",
    )


def _first_line(report: str) -> str:
    """Return the report up to its dump of the parser's state, on one line."""
    head = report.split("<state>")[0]
    return " ".join(head.split())[:300].rstrip(". ")
