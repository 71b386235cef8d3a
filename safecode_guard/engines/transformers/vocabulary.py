"""A tokenizer behind the `Vocabulary` protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any


class TokenizerVocabulary:
    """A transformers tokenizer as far as steering and judging need it.

    ``size`` is the width of the model's logits, which may exceed the tokenizer's table (padded
    embeddings) or fall short of it (an image token without an output row).

    Example:
        >>> vocabulary = TokenizerVocabulary(tokenizer, size=32064)     # doctest: +SKIP
        >>> vocabulary.decode(vocabulary.encode(" unsafe"))             # doctest: +SKIP
        ' unsafe'
    """

    def __init__(
        self, tokenizer: Any, *, size: int | None = None, eos_ids: Iterable[int] = ()
    ) -> None:
        table: dict[str, int] = tokenizer.get_vocab()
        self._tokenizer = tokenizer
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        self.id = _digest(table)
        self.size = len(tokenizer) if size is None else size
        eos = tokenizer.eos_token_id
        self.eos_ids = frozenset(eos_ids) or frozenset([] if eos is None else [int(eos)])
        added: dict[int, Any] = tokenizer.added_tokens_decoder
        marked = {i for i, token in added.items() if token.special}
        self.special_ids = frozenset({*tokenizer.all_special_ids, *marked, *self.eos_ids})

    @cached_property
    def known_words(self) -> Sequence[str]:
        """The words that are a token of their own, sorted: letters alone, a space before them."""
        each = [[token] for token in range(min(self.size, len(self._tokenizer)))]
        if self._backend is not None:
            texts = self._backend.decode_batch(
                each, skip_special_tokens=True
            )  # twenty times faster
        else:
            texts = [self.decode(ids) for ids in each]
        return sorted({word for text in texts if (word := text.strip()).isalpha()})

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer itself, for grammars that are compiled against its table."""
        return self._tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any special tokens added."""
        if self._backend is not None:
            # Calling the tokenizer itself would reset the padding under an encoding thread.
            return list(self._backend.encode(text, add_special_tokens=False).ids)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens left out, spaces as they are."""
        if self._backend is not None:
            return str(self._backend.decode(list(ids), skip_special_tokens=True))
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


def _digest(table: dict[str, int]) -> str:
    canonical = json.dumps(sorted(table.items()), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
