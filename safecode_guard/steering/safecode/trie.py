"""The refusal trie: which next tokens begin or continue a refusal, given the text so far.

A flat set of refusal tokens pushes "I" and "to" at every step. The trie pushes only the children
of the node that the text so far has reached: nothing at all once the text has gone another way,
and a phrase of many tokens is followed to its end. What stands before the first word, markdown or
a quote, is passed over (`leads`).

**The root question.** At the root an ordinary "I" is a child too: "I" begins "I cannot help" and
"I see a dog". The lexicon therefore marks the *stem* of each phrase, the part it shares with
ordinary sentences (an unfinished refusing word, "Un" of "Unfortunately", counts to it, and so does
what an opening has in common that the lexicon *spares*: "Unfortunately, the photo is blurry"). The
two directions treat stems differently:

* boost: a stem gets the full push. Where every refusal begins with "I" it is the only way in, and
  an "I see ..." too many does no harm after an unsafe verdict. A *weak* stem, one that mostly
  begins ordinary sentences ("This is |not something I can"), gets half.
* suppress: a stem gets ``root_weight`` of the push (a weak one never more than half), and what it
  holds back falls due at the token that leaves the stem ("cannot", "'m sorry"): k guided tokens
  of a refusal are pushed by k lambda in either case. With P("I") = 0.4 and three in ten of those
  sentences refusing, lambda 1 and root_weight 0.5 take the refusal from 0.12 to 0.025 and leave
  the ordinary "I" at 0.26 of 0.28 (full weight: 0.027 and 0.17).

Leaving stems alone altogether would be kinder still to ordinary sentences, but then a model whose
"I" nearly always refuses is caught behind it with nowhere to go; such a model's record sets
``root_weight`` to 1.

**Pieces of a first word.** "D" of "Désolé" begins "Dear" and "Do" as well. A piece is pushed only
if, of the words of the vocabulary that begin with it, a refusal is likely (`words`); otherwise the
phrase's next piece or word carries it. Such a piece is neither pushed nor held back for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from safecode_guard.errors import PolicyError
from safecode_guard.models.protocol import Vocabulary
from safecode_guard.steering.safecode.leads import (
    BLANKS,
    MARKS,
    lead_of,
    whole_characters,
    without_marks,
)
from safecode_guard.steering.safecode.reasoning import Reasoning
from safecode_guard.steering.safecode.refusals import Phrase, RefusalLexicon
from safecode_guard.steering.safecode.words import LIKELY, first_word, share

WEAK = 0.5
"""Most of the push that a weak stem gets, in either direction."""
ROOT = 0


@dataclass(eq=False)
class _Node:
    text: str | None = None
    """Written up to here, without what stands before the first word; None: nobody has asked."""
    children: dict[int, int] = field(default_factory=dict)
    stem: bool = False
    """Some phrase has not said its refusing word here, or not all of it."""
    strong: bool = False
    """Some phrase goes through here that is not weak."""
    key: bool = False
    """The token that leads here is a whole first or refusing word of some phrase."""
    plain: bool = False
    """Some phrase is written like this as it stands, and not in capitals or behind a mark."""
    unfinished: set[str] = field(default_factory=set)
    """First words of phrases of which a piece is written here."""
    finished: bool = False
    """The first word of some phrase is written here, whole."""
    pushed: bool = True
    """A refusal is likely here; False for pieces of words that begin others as well."""


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
        self.vocabulary = vocabulary
        self.reasoning = Reasoning(vocabulary)
        self.unwritten: tuple[Phrase, ...] = ()
        """Phrases that need tokens which this vocabulary lacks."""
        self._nodes = [_Node()]

    @classmethod
    def build(cls, lexicon: RefusalLexicon, vocabulary: Vocabulary) -> RefusalTrie:
        """Write every spelling of every phrase in the vocabulary's tokens.

        Phrases that need an unknown or special token are left out, as are the tokens of what
        stands before the first word.

        Raises:
            PolicyError: If no phrase can be written in this vocabulary.
        """
        trie = cls(lexicon, vocabulary)
        writer = _Writer(vocabulary)
        for phrase in lexicon.phrases:
            plain = frozenset(phrase.spellings())
            for spelling in phrase.all_spellings():
                for ids, as_it_stands in writer.ways(spelling.text):
                    trie._add(ids, spelling, as_it_stands and spelling in plain)
        for opening in lexicon.spared:
            for spelling in Phrase(opening).all_spellings():
                for ids, _ in writer.ways(spelling.text):
                    trie._spare(ids)
        trie._weigh_pieces()
        trie.unwritten = tuple(p for p in lexicon.phrases if not any(writer.ways(p.text)))
        if not trie._nodes[ROOT].children:
            raise PolicyError(
                "No refusal phrase can be written in the model's tokens.",
                hint="Add decoding.refusal_phrases in a language the model writes.",
            )
        return trie

    def shares(self, so_far: Sequence[int], *, root_weight: float = 1.0) -> dict[int, float]:
        """Return the tokens to push after ``so_far``, each with its share of lambda.

        Args:
            so_far: Tokens of the answer so far, without any reasoning.
            root_weight: Share of a stem token; what it holds back falls to the token that leaves
                the stem.
        """
        path = self._path(so_far)
        return {} if path is None else self._shares(path, root_weight)

    def below(
        self, so_far: Sequence[int], *, root_weight: float = 1.0, most: int
    ) -> Iterator[tuple[tuple[int, ...] | None, dict[int, float]]]:
        """Yield the nodes from a text on, nearest first: the tokens that go on, and the shares.

        A node's tokens lead to the next nodes that no node before it leads to.

        Args:
            so_far: As in `shares`.
            root_weight: As in `shares`.
            most: Tokens that are yielded at most; a node whose own would be too many yields None
                in their place, and what is below it is left out.
        """
        path = self._path(so_far)
        waiting = [] if path is None else [path]
        for path in waiting:
            children = path[-1].children
            if len(children) > most:
                yield None, {}
                continue
            most -= len(children)
            waiting += ([*path, self._nodes[i]] for i in children.values())
            yield tuple(children), self._shares(path, root_weight)

    def _shares(self, path: Sequence[_Node], root_weight: float) -> dict[int, float]:
        weights = [self._weight(node, root_weight) for node in path[1:] if node.pushed]
        held = sum(1 - weight for weight in weights) if path[-1].stem else 0.0
        children = ((t, self._nodes[i]) for t, i in path[-1].children.items())
        return {
            token: self._weight(child, root_weight) if child.stem else 1 + held
            for token, child in children
            if child.pushed
        }

    def inside(self, so_far: Sequence[int]) -> bool:
        """Return whether a text stands within a refusal that may go on."""
        path = self._path(so_far)
        return path is not None and len(path) > 1 and bool(path[-1].children)

    def written(self, so_far: Sequence[int]) -> int:
        """Return how many tokens of the answer itself have been written, its lead not counted.

        0 while it is not known whether the text is a lead ("**Ans").
        """
        lead = lead_of(self.vocabulary, so_far)
        return len(so_far) - lead.length if lead.over else 0

    def roots(self) -> Iterator[tuple[int, str, bool]]:
        """Yield the first tokens: id, text from its first letter on, whether it is pushed."""
        for token, child in self._nodes[ROOT].children.items():
            yield token, self._nodes[child].text or "", self._nodes[child].pushed

    def tokens(self, *, key_words_only: bool = False) -> frozenset[int]:
        """Return the flat set of tokens of all phrases as they stand; weak ones left out.

        Args:
            key_words_only: Only tokens that are a whole first word ("I", "Sorry") or a whole
                refusing word ("sorry", "cannot"); no pieces of words, and not what stands
                between and after them ("am", "to", "help", ",").
        """
        children = ((t, self._nodes[i]) for n in self._nodes for t, i in n.children.items())
        return frozenset(
            token for token, child in children if child.plain and (child.key or not key_words_only)
        )

    def spell(self, phrase: Phrase) -> list[int]:
        """Return the tokens of a phrase as it stands, without leading whitespace tokens."""
        ids = self.vocabulary.encode(phrase.text)
        return ids[lead_of(self.vocabulary, ids).length :]

    def _path(self, so_far: Sequence[int]) -> list[_Node] | None:
        """Return the nodes from the root to a text; None if it is no beginning of a refusal."""
        path = [self._nodes[ROOT]]
        for token in so_far[lead_of(self.vocabulary, so_far).length :]:
            after = path[-1].children.get(token)
            if after is None:
                return None
            path.append(self._nodes[after])
        return path

    def _weight(self, node: _Node, root_weight: float) -> float:
        """Return the share of a token that leads to a stem; 1 for all others."""
        if not node.stem:
            return 1.0
        return root_weight if node.strong else min(root_weight, WEAK)

    def _add(self, ids: list[int], phrase: Phrase, plain: bool) -> None:
        node, before, plain = self._nodes[ROOT], 0, plain and not phrase.weak
        word, commits_at = first_word(phrase.text), phrase.commits_at
        for count, token in enumerate(ids, start=1):
            node = self._child(node, token)
            node.strong |= not phrase.weak
            node.plain |= plain
            if before >= commits_at:
                continue
            if node.text is None:
                node.text = self._text(ids[:count])
            written = max(before, len(node.text))  # half a character may hide those before it
            node.stem |= written < commits_at
            node.key |= plain and phrase.has_key_word(before, written) and self._is_whole(token)
            node.finished |= written >= len(word)
            if written < len(word):
                node.unfinished.add(word)
            before = written

    def _child(self, node: _Node, token: int) -> _Node:
        if token not in node.children:
            node.children[token] = len(self._nodes)
            self._nodes.append(_Node())
        return self._nodes[node.children[token]]

    def _text(self, ids: list[int]) -> str:
        """Return what tokens write from the first letter on, whole characters only."""
        return without_marks(whole_characters(self.vocabulary.decode(ids).strip()))

    def _spare(self, ids: list[int]) -> None:
        """Make a stem of what an ordinary opening has in common with phrases."""
        node = self._nodes[ROOT]
        for token in ids:
            if token not in node.children:
                return
            node = self._nodes[node.children[token]]
            node.stem = True

    def _weigh_pieces(self) -> None:
        known = self.vocabulary.known_words
        for node in self._nodes:
            if node.unfinished and not node.finished:
                node.pushed = share(node.text or "", node.unfinished, known) >= LIKELY

    def _is_whole(self, token: int) -> bool:
        text = self.vocabulary.decode([token])
        return whole_characters(text) == text


class _Writer:
    """Writes phrases in a vocabulary's tokens, behind whatever may stand before them.

    Only the first chunk of a phrase, up to its first space, depends on what stands before it, so
    the rest is encoded once.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._chunk = cache(self._read_chunk)
        self._rest = cache(self._read_rest)

    def ways(self, text: str) -> Iterator[tuple[list[int], bool]]:
        """Yield the tokens of a text behind each lead, and whether only a blank is before it."""
        chunk, _, rest = text.partition(" ")
        following = self._rest(chunk.lower(), rest) if rest else []
        seen: set[tuple[int, ...]] = set()
        for lead in (*BLANKS, *MARKS):
            first = self._chunk(lead, chunk)
            if first not in seen and self._can_be_written([*first, *following]):
                yield [*first, *following], lead in BLANKS
            seen.add(first)

    def _read_chunk(self, lead: str, chunk: str) -> tuple[int, ...]:
        """Return the tokens of the first chunk behind a lead, the lead's own left out."""
        ids = self._vocabulary.encode(lead + chunk)
        return tuple(ids[lead_of(self._vocabulary, ids).length :])

    def _read_rest(self, chunk: str, rest: str) -> list[int]:
        """Return the tokens of what follows the first chunk."""
        before = self._vocabulary.encode(chunk)
        return self._vocabulary.encode(f"{chunk} {rest}")[len(before) :]

    def _can_be_written(self, ids: list[int]) -> bool:
        vocabulary = self._vocabulary
        return (
            vocabulary.special_ids.isdisjoint(ids) and 0 <= max(ids, default=-1) < vocabulary.size
        )


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
