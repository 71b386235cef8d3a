"""The refusal trie: which next tokens begin or continue a refusal, given the text so far.

A flat set of refusal tokens pushes "I" and "to" at every step. The trie pushes only the children
of the node that the text so far has reached: nothing at all once the text has gone another way,
and a phrase of many tokens is followed to its end.

**The root question.** At the root an ordinary "I" is a child too: "I" begins "I cannot help" and
"I see a dog". The lexicon therefore marks the *stem* of each phrase, the part it shares with
ordinary sentences (an unfinished refusing word, "Un" of "Unfortunately", counts to it), and the
two directions treat stems differently:

* boost: a stem gets the full push. Where every refusal begins with "I" it is the only way in, and
  an "I see ..." too many does no harm after an unsafe verdict.
* suppress: a stem gets ``root_weight`` of the push, and what it holds back falls due at the token
  that leaves the stem ("cannot", "'m sorry"): k guided tokens of a refusal are pushed by k lambda
  in either case. With P("I") = 0.4 and three in ten of those sentences refusing, lambda 1 and
  root_weight 0.5 take the refusal from 0.12 to 0.025 and leave the ordinary "I" at 0.26 of 0.28
  (full weight: 0.027 and 0.17).

Leaving stems alone altogether would be kinder still to ordinary sentences, but then a model whose
"I" nearly always refuses is caught behind it with nowhere to go; such a model's record sets
``root_weight`` to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from safecode_guard.errors import PolicyError
from safecode_guard.models.protocol import Vocabulary
from safecode_guard.steering.safecode.refusals import Phrase, RefusalLexicon

_LEADS = ("", " ", "\n")
"""What may stand before the first word; after a newline SentencePiece writes it without a mark."""
_HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"
ROOT = 0


@dataclass(eq=False)
class _Node:
    children: dict[int, int] = field(default_factory=dict)
    depth: int = 0
    stem: bool = False
    """Some phrase has not said its refusing word here, or not all of it."""
    key: bool = False
    """The token that leads here is a whole first or refusing word of some phrase."""


class RefusalTrie:
    """Refusal phrases as token ids of one vocabulary.

    Example:
        >>> trie = RefusalTrie.build(lexicon, vocabulary)       # doctest: +SKIP
        >>> trie.shares([])                                     # doctest: +SKIP
        {40: 1.0, 19701: 1.0}
    """

    def __init__(self, lexicon: RefusalLexicon, vocabulary: Vocabulary) -> None:
        """Make an empty trie; `build` makes a full one."""
        self.lexicon = lexicon
        self._vocabulary = vocabulary
        self._nodes = [_Node()]

    @classmethod
    def build(cls, lexicon: RefusalLexicon, vocabulary: Vocabulary) -> RefusalTrie:
        """Write every spelling of every phrase in the vocabulary's tokens.

        Phrases that need an unknown or special token are left out, as are whitespace-only lead
        tokens.

        Raises:
            PolicyError: If no phrase can be written in this vocabulary.
        """
        trie = cls(lexicon, vocabulary)
        for phrase in lexicon.phrases:
            for spelling in phrase.spellings():
                for ids in trie._written(spelling.text):
                    trie._add(ids, spelling)
        if not trie._nodes[ROOT].children:
            raise PolicyError(
                "No refusal phrase can be written in the model's tokens.",
                hint="Add decoding.refusal_phrases in a language the model writes.",
            )
        return trie

    def shares(self, so_far: Sequence[int], *, root_weight: float = 1.0) -> dict[int, float]:
        """Return the tokens to push after ``so_far``, each with its share of lambda.

        Args:
            so_far: Tokens generated so far.
            root_weight: Share of a stem token; what it holds back falls to the token that leaves
                the stem.
        """
        node = self.node(so_far)
        if node is None:
            return {}
        held = (1 - root_weight) * self._nodes[node].depth if self._is_stem(node) else 0.0
        return {
            token: root_weight if self._is_stem(child) else 1 + held
            for token, child in self._nodes[node].children.items()
        }

    def node(self, so_far: Sequence[int]) -> int | None:
        """Return the node that a text has reached; None once it is no beginning of a refusal.

        Leading whitespace tokens are passed over.
        """
        node = ROOT
        for token in so_far:
            after = self._nodes[node].children.get(token)
            if after is None and node == ROOT and self._is_blank(token):
                continue
            if after is None:
                return None
            node = after
        return node

    def tokens(self, *, key_words_only: bool = False) -> frozenset[int]:
        """Return the flat set of tokens of all phrases.

        Args:
            key_words_only: Only tokens that are a whole first word ("I", "Sorry") or a whole
                refusing word ("sorry", "cannot"); no pieces of words, and not what stands
                between and after them ("am", "to", "help", ",").
        """
        children = (item for node in self._nodes for item in node.children.items())
        return frozenset(
            token for token, child in children if not key_words_only or self._nodes[child].key
        )

    def spell(self, phrase: Phrase) -> list[int]:
        """Return the tokens of a phrase as it stands, without leading whitespace tokens."""
        return self._trimmed(self._vocabulary.encode(phrase.text))

    def _written(self, text: str) -> Iterator[list[int]]:
        special, size = self._vocabulary.special_ids, self._vocabulary.size
        for lead in _LEADS:
            ids = self._trimmed(self._vocabulary.encode(lead + text))
            if ids and special.isdisjoint(ids) and max(ids) < size:
                yield ids

    def _trimmed(self, ids: list[int]) -> list[int]:
        start = next((i for i, token in enumerate(ids) if not self._is_blank(token)), len(ids))
        return ids[start:]

    def _add(self, ids: list[int], phrase: Phrase) -> None:
        node, written = ROOT, 0
        for count, token in enumerate(ids, start=1):
            node = self._child(node, token)
            if written >= phrase.commits_at:
                continue
            before, written = written, self._length(ids[:count])
            reached = self._nodes[node]
            reached.stem |= written < phrase.commits_at
            reached.key |= phrase.has_key_word(before, written) and self._is_whole(token)

    def _length(self, ids: list[int]) -> int:
        """Return how many whole characters have been written."""
        return len(self._vocabulary.decode(ids).strip().rstrip(_HALF_CHARACTER))

    def _child(self, node: int, token: int) -> int:
        children = self._nodes[node].children
        if token not in children:
            children[token] = len(self._nodes)
            self._nodes.append(_Node(depth=self._nodes[node].depth + 1))
        return children[token]

    def _is_whole(self, token: int) -> bool:
        return _HALF_CHARACTER not in self._vocabulary.decode([token])

    def _is_stem(self, node: int) -> bool:
        return self._nodes[node].stem

    def _is_blank(self, token: int) -> bool:
        return not self._vocabulary.decode([token]).strip()


def spread(shares: Mapping[int, float], ids: Tensor, *, size: int) -> Tensor:
    """Return shares as a vector over candidates: float32 [n], 0 where a token has none.

    Args:
        shares: Token to share.
        ids: int64 [n], the token each column stands for.
        size: Width of the whole vocabulary.
    """
    table = torch.zeros(size, device=ids.device)
    if shares:
        tokens = torch.tensor(list(shares), device=ids.device)
        table[tokens] = torch.tensor(list(shares.values()), device=ids.device)
    return table[ids]


def flat(tokens: Iterable[int]) -> dict[int, float]:
    """Return a full share for each token."""
    return dict.fromkeys(tokens, 1.0)
