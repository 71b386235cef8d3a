"""The part of the refusal trie that a server is sent, and where a text stands in it.

A server has token ids and no tokenizer, so whatever the trie decides by *text* is decided before:
which tokens are marks that may stand before the first word (``passed``), and after which it takes
the text to know (``unsure``). All that is not sent is *beyond* the cover: there the pair halts, and
the client goes on from the certified tokens with the next one. So a cover may be as small as it
likes and is never wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Self

from safecode_guard.steering.pairs.packing import pack, pack_ids, unpack, unpack_ids

MOST_LEAD: Final = 16
"""Tokens that may stand before the first word; as `leads.MOST_LEAD_TOKENS`."""
MOST_NODES: Final = 65_536
MOST_SHARES: Final = 256
MOST_SHARE: Final = 100.0
_LEAF, _CUT = 0, 1
_ROOT = 0


@dataclass(frozen=True)
class Place:
    """Where a text stands."""

    shares: Mapping[int, float]
    """The tokens to push next, each with its share of the push."""
    written: int
    """Tokens of the answer itself, its lead not counted."""
    inside: bool = False
    """It is within a refusal that may go on."""
    beyond: bool = False
    """Its shares are not known here."""


@dataclass(eq=False, slots=True)
class Node:
    """A node of a cover."""

    children: dict[int, int] = field(default_factory=dict)
    """Token to node."""
    shares: dict[int, float] = field(default_factory=dict)
    """Token to share, for the children that are pushed."""
    cut: bool = False
    """It has children that were not sent."""


@dataclass(frozen=True, eq=False)
class Cover:
    """What of the refusals a pair can steer by, from the text at which it begins.

    Example:
        >>> cover = Cover([Node({5: 1}, {5: 1.0}), Node()], passed=frozenset({7}), lead=16)
        >>> cover.place([7]).shares, cover.place([7, 5]).shares, cover.place([6, 5]).shares
        ({5: 1.0}, {}, {})
    """

    nodes: Sequence[Node] = (Node(),)
    """The first is where the pair begins."""
    everywhere: frozenset[int] = frozenset()
    """Tokens that are pushed at every step, whatever the text."""
    lead: int = 0
    """Tokens before the first word that may still be passed over; 0: it has begun."""
    passed: frozenset[int] = frozenset()
    """Tokens that are marks and nothing else."""
    unsure: frozenset[int] = frozenset()
    """Tokens after which, in a lead, it takes the text to know."""
    doubts: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Of those, the ones that are settled by any next token but these."""
    inside: bool = False
    """The text at which the pair begins is within a refusal."""
    once: bool = False
    """Covered is the first step alone."""

    @cached_property
    def highest(self) -> int:
        """The highest token id in it; -1 for none."""
        sets = [self.everywhere, self.passed, self.unsure, *self.doubts.values()]
        tokens = [max(node.children, default=-1) for node in self.nodes]
        return max([*tokens, *(max(ids, default=-1) for ids in sets)])

    def place(self, tokens: Sequence[int]) -> Place:
        """Return where a text stands after the pair's own tokens."""
        if self.everywhere:
            return Place(dict.fromkeys(self.everywhere, 1.0), len(tokens))
        if self.once and tokens:
            return Place({}, 0, beyond=True)
        lead = self._lead(tokens)
        words = tokens[lead:]
        if lead < self.lead and words and words[0] in self.unsure:
            over = self._settled(words, last=len(tokens) >= self.lead)
        else:
            over = bool(words) or lead == self.lead
        if over is None:
            return Place({}, 0, beyond=True)
        return self._walked(words, written=len(words) if over and not self.once else 0)

    def _lead(self, tokens: Sequence[int]) -> int:
        """Return how many tokens are passed over."""
        for count, token in enumerate(tokens[: self.lead]):
            if token not in self.passed:
                return count
        return min(len(tokens), self.lead)

    def _settled(self, words: Sequence[int], *, last: bool) -> bool | None:
        """Return whether the lead before a doubtful token is over; None: it takes the text.

        After the ``last`` token that a lead may have it is over in any case.
        """
        doubts = self.doubts.get(words[0])
        if doubts is None:
            return None
        if len(words) == 1:
            return last
        return None if words[1] in doubts else True

    def _walked(self, words: Sequence[int], *, written: int) -> Place:
        at = _ROOT
        for token in words:
            after = self.nodes[at].children.get(token)
            if after is None:
                return Place({}, written, beyond=self.nodes[at].cut)
            at = after
        node = self.nodes[at]
        inside = (bool(node.children) or node.cut) and (at != _ROOT or self.inside)
        return Place(node.shares, written, inside, beyond=node.cut)

    def to_json(self) -> dict[str, Any]:
        """Return the cover as plain JSON types; sets and nodes as packed text."""
        return dict(self._json)

    @cached_property
    def _json(self) -> dict[str, Any]:
        table = sorted({share for node in self.nodes for share in node.shares.values()})
        return {
            "nodes": pack(_codes(self.nodes, table)),
            "shares": table,
            "everywhere": pack_ids(self.everywhere),
            "lead": self.lead,
            "passed": pack_ids(self.passed),
            "unsure": pack_ids(self.unsure),
            "doubts": [[token, pack_ids(ids)] for token, ids in sorted(self.doubts.items())],
            "inside": self.inside,
            "once": self.once,
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Return the cover that was written as JSON.

        Raises:
            ValueError: If it is none: a field is missing, unknown, of another type or out of
                bounds, or an index leads nowhere.
        """
        names = {"nodes", "shares", "everywhere", "lead", "passed", "unsure", "doubts"}
        if not isinstance(data, dict) or set(data) != names | {"inside", "once"}:
            raise ValueError("the cover has other fields than it should")
        if type(data["lead"]) is not int or not 0 <= data["lead"] <= MOST_LEAD:
            raise ValueError(f"the cover's lead is no whole number from 0 to {MOST_LEAD}")
        if type(data["inside"]) is not bool or type(data["once"]) is not bool:
            raise ValueError("the cover's flags are not true or false")
        return cls(
            _nodes(unpack(data["nodes"]), _shares(data["shares"])),
            everywhere=unpack_ids(data["everywhere"]),
            lead=data["lead"],
            passed=unpack_ids(data["passed"]),
            unsure=unpack_ids(data["unsure"]),
            doubts=_doubts(data["doubts"]),
            inside=data["inside"],
            once=data["once"],
        )


def _codes(nodes: Sequence[Node], table: Sequence[float]) -> Iterator[int]:
    """Yield nodes in breadth-first order: kind or number of children, then these.

    A child is its token's distance from the one before and the place of its share in the table,
    from 1 on; 0: it is not pushed. Its node is the next that no child before it has.
    """
    index = {share: place for place, share in enumerate(table, start=1)}
    waiting = [_ROOT]
    for at in waiting:
        node = nodes[at]
        yield _CUT if node.cut else len(node.children) + 1 if node.children else _LEAF
        before = 0
        for token, child in sorted(node.children.items()):
            yield token - before
            yield index[node.shares[token]] if token in node.shares else 0
            before = token
            waiting.append(child)


def _nodes(codes: Iterator[int], table: Sequence[float]) -> list[Node]:
    nodes, at = [Node()], 0
    while at < len(nodes):
        node, code, token = nodes[at], _next(codes), 0
        node.cut = code == _CUT
        for child in range(max(code - 1, 0)):
            distance, share = _next(codes), _next(codes)
            if (child and not distance) or share > len(table) or len(nodes) >= MOST_NODES:
                raise ValueError("the cover's nodes contradict themselves")
            token += distance
            node.children[token] = len(nodes)
            if share:
                node.shares[token] = table[share - 1]
            nodes.append(Node())
        at += 1
    if next(codes, None) is not None:
        raise ValueError("the cover has nodes that no token leads to")
    return nodes


def _next(codes: Iterator[int]) -> int:
    code = next(codes, None)
    if code is None:
        raise ValueError("the cover's nodes are cut off")
    return code


def _shares(table: object) -> list[float]:
    if not isinstance(table, list) or len(table) > MOST_SHARES:
        raise ValueError(f"the cover's shares are no list of at most {MOST_SHARES}")
    for share in table:
        if type(share) not in (int, float) or not 0 <= share <= MOST_SHARE:
            raise ValueError(f"a share of the cover is no number from 0 to {MOST_SHARE:g}")
    return [float(share) for share in table]


def _doubts(pairs: object) -> dict[int, frozenset[int]]:
    if not isinstance(pairs, list):
        raise ValueError("the cover's doubts are no list")
    doubts: dict[int, frozenset[int]] = {}
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) is not int or pair[0] < 0:
            raise ValueError("a doubt of the cover is not a token and a packed set")
        doubts[pair[0]] = unpack_ids(pair[1])
    return doubts
