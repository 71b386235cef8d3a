"""Covers made from a steering: what of its trie the next pair needs, from a text on.

Made by the client, which has the vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from safecode_guard.errors import PolicyError
from safecode_guard.models.protocol import Vocabulary
from safecode_guard.steering.pairs.cover import MOST_LEAD, Cover, Node
from safecode_guard.steering.safecode.guided import GuardedSteering, GuidedSteps, PaperSteering
from safecode_guard.steering.safecode.leads import (
    is_lead,
    lead_of,
    may_become_lead,
    whole_characters,
    without_marks,
)
from safecode_guard.steering.safecode.reasoning import Reasoning

MOST_EDGES: Final = 4_000
"""Tokens of phrases in one cover; packed some 15 KB. Deeper nodes are cut first."""
_MOST_DOUBTS: Final = 512
_MOST_KEPT: Final = 32


@dataclass(frozen=True)
class Guidance:
    """What is left of a steering after a text."""

    cover: Cover
    steps: int
    most: int


class Coverage:
    """Makes covers for one vocabulary, of which it keeps what its tokens say before a first word.

    Example:
        >>> Coverage(vocabulary).of(steering).cover.lead        # doctest: +SKIP
        16
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._doubts: dict[int, frozenset[int] | None] = {}
        self._first: OrderedDict[tuple[object, ...], Cover] = OrderedDict()
        """Of answers that have not begun; it is the same for all that are steered alike."""

    def of(self, steering: GuidedSteps, before: Sequence[int] = ()) -> Guidance:
        """Return the cover that a pair needs which begins after ``before``.

        Args:
            steering: Of recipe ``paper`` or ``guarded``, in this vocabulary.
            before: Tokens of the answer that are certified already.

        Raises:
            PolicyError: If the text stands within a model's reasoning.
        """
        record = steering.record
        if not isinstance(steering, GuardedSteering):
            flat = steering.refusals if isinstance(steering, PaperSteering) else frozenset()
            left = record.steps - len(before)
            return Guidance(Cover(everywhere=flat if record.push else frozenset()), left, left)
        start = steering.trie.reasoning.end(before)
        if start is None:
            raise PolicyError(
                "A pair cannot begin within a model's reasoning.",
                hint="Let the reasoning be written first, and steer what follows it.",
            )
        text = before[start:]
        written = steering.trie.written(text)
        most = max(record.most_steps or 0, record.steps)
        cover = self._cover(steering, text) if text else self._beginning(steering)
        return Guidance(cover, max(record.steps - written, 0), most - written)

    def _beginning(self, steering: GuardedSteering) -> Cover:
        record, trie = steering.record, steering.trie
        key = (trie, record.root_weight, record.push == 0)
        cover = self._first.pop(key, None) or self._cover(steering, ())
        self._first[key] = cover
        if len(self._first) > _MOST_KEPT:
            self._first.popitem(last=False)
        return cover

    def _cover(self, steering: GuardedSteering, text: Sequence[int]) -> Cover:
        trie = steering.trie
        lead = lead_of(self.vocabulary, text)
        nodes = _pruned(steering, text)
        if lead.over:
            return Cover(nodes, inside=trie.inside(text))
        if lead.length < len(text):  # "Ans", half of an emoji: what comes next decides
            return Cover(nodes, once=True)
        passed, unsure = self.classes
        known = {token: self._doubts_after(token) for token in unsure & set(nodes[0].children)}
        return Cover(
            nodes,
            lead=MOST_LEAD - len(text),
            passed=passed,
            unsure=unsure,
            doubts={token: ids for token, ids in known.items() if ids is not None},
        )

    @cached_property
    def texts(self) -> list[str]:
        """What each token writes by itself; at first use it may take seconds."""
        return [self.vocabulary.decode([token]) for token in range(self.vocabulary.size)]

    @cached_property
    def classes(self) -> tuple[frozenset[int], frozenset[int]]:
        """The tokens that are marks alone, and those that may make a lead in another way."""
        reasoning, passed, unsure = Reasoning(self.vocabulary), set(), set()
        for token, text in enumerate(self.texts):
            if not text.strip()[:1].isalnum() and reasoning.end([token]) != 0:
                unsure.add(token)
            elif _is_marks(text):
                passed.add(token)
            elif may_become_lead(text):
                unsure.add(token)
        return frozenset(passed), frozenset(unsure)

    def _doubts_after(self, first: int) -> frozenset[int] | None:
        """Return which tokens after a first one ("As") may yet make a lead of both ("Assistant:").

        None if they are too many to be sent, or if the first is part of a character.
        """
        if first not in self._doubts:
            text = self.texts[first]
            doubts = frozenset(self._continuing(text))
            sendable = text == whole_characters(text) and not is_lead(text)
            self._doubts[first] = doubts if sendable and len(doubts) <= _MOST_DOUBTS else None
        return self._doubts[first]

    def _continuing(self, before: str) -> Iterator[int]:
        for token, text in enumerate(self.texts):
            # by itself a token may lose the space that it has behind another
            if may_become_lead(before + text) or may_become_lead(f"{before} {text}"):
                yield token


def _is_marks(text: str) -> bool:
    return text == whole_characters(text) and without_marks(text) == ""


def _pruned(steering: GuardedSteering, text: Sequence[int]) -> list[Node]:
    """Return the trie's nodes from a text on, nearest first, until there are enough."""
    weight = steering.record.root_weight
    root_weight = 1.0 if weight is None else weight
    nodes = [Node()]
    if steering.record.push == 0:
        return nodes
    below = steering.trie.below(text, root_weight=root_weight, most=MOST_EDGES)
    for node, (children, shares) in zip(nodes, below, strict=False):
        node.cut, node.shares = children is None, shares
        for token in children or ():
            node.children[token] = len(nodes)
            nodes.append(Node())
    return nodes
