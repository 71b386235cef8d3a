"""The pairs: which rows of a batch are steered together, sealed, or halted.

A step of a pair is steered only if both rows are there at the same length; then one token is chosen
for both. Everything else is answered with the halt token, so a row goes on unsteered in no case.
After the last guided token the twin alone gets the seal: a proof that every token before it was
steered. Which of the answers may be released is `safecode_guard.steering.pairs.acceptance`.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from safecode_guard.steering.pairs.cover import Place
from safecode_guard.steering.pairs.spec import PairSpec
from safecode_guard.steering.safecode.contrast import steer

MOST_PAIRS: Final = 16_384
"""Pairs that are remembered; one that is forgotten between two steps is dead."""
PENDING: Final = -1
"""Stands for a token that was chosen and has not been copied to the host yet."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One request's row of a batch, in one step."""

    index: int
    spec: PairSpec
    written: Sequence[int]
    """Tokens of its answer so far; `PENDING` where one is not known yet."""


@dataclass
class _Pair:
    shared: PairSpec
    main: PairSpec | None = None
    tokens: list[int] = field(default_factory=list)
    """What was steered, whether or not the engine has kept it."""
    dead: bool = False


class _Parted(Exception):
    """The pair cannot be steered any more."""


class Pairs:
    """The pairs of one engine.

    Example:
        >>> Pairs().apply(torch.zeros(2, 8), [])        # rows without a spec are left alone
        tensor([[0., 0., 0., 0., 0., 0., 0., 0.],
                [0., 0., 0., 0., 0., 0., 0., 0.]])
    """

    def __init__(self) -> None:
        self._pairs: OrderedDict[str, _Pair] = OrderedDict()

    def apply(self, logits: Tensor, rows: Iterable[Row]) -> Tensor:
        """Steer, seal or halt the rows of guided requests, in place; never raises.

        Args:
            logits: float32 [batch, n].
            rows: Those of the batch that have a spec.
        """
        together: dict[str, list[Row]] = {}
        for row in rows:
            together.setdefault(row.spec.pair, []).append(row)
        for name, members in together.items():
            pair = self._pair(name, members[0].spec)
            try:
                self._step(pair, members, logits)
            except _Parted:
                _kill(pair, members, logits)
            except Exception:  # it would end the engine, and everybody's requests with it
                _log.exception("A pair could not be steered.")
                _kill(pair, members, logits)
        return logits

    def kill(self, logits: Tensor, rows: Iterable[Row]) -> Tensor:
        """End the pairs of some rows, whatever they were: all halt from now on."""
        for row in rows:
            _kill(self._pair(row.spec.pair, row.spec), [row], logits)
        return logits

    def _pair(self, name: str, spec: PairSpec) -> _Pair:
        pair = self._pairs.setdefault(name, _Pair(spec.shared))
        self._pairs.move_to_end(name)
        while len(self._pairs) > MOST_PAIRS:
            self._pairs.popitem(last=False)
        return pair

    def _step(self, pair: _Pair, rows: Sequence[Row], logits: Tensor) -> None:
        _check(pair, rows, width=logits.shape[1])
        for row in rows:
            if row.spec.role == "main":
                pair.main = pair.main or row.spec
        spec = pair.main
        if spec is None or spec.cover is None:
            return _halt(rows, logits)
        place = spec.cover.place(pair.tokens)
        waiting = [row for row in rows if len(row.written) < len(pair.tokens)]
        if spec.over(pair.tokens, place) and not waiting:
            return _seal(rows, logits)
        if len({len(row.written) for row in rows}) > 1:
            raise _Parted
        if len(rows) == 1:
            # may be a chunk of a prefill, whose token the engine drops: not the pair's end yet
            return _halt(rows, logits)
        del pair.tokens[len(rows[0].written) :]
        return self._steer(pair, spec, rows, logits)

    def _steer(self, pair: _Pair, spec: PairSpec, rows: Sequence[Row], logits: Tensor) -> None:
        assert spec.cover is not None
        place = spec.cover.place(pair.tokens)
        if place.beyond:
            raise _Parted
        views = logits[[row.index for row in sorted(rows, key=lambda row: row.spec.role)]].float()
        stages = steer(
            views,
            _push(spec, place, views[0]),
            alpha=spec.alpha,
            normalise=spec.normalise,
            top_k=spec.top_k,
            plausibility=spec.plausibility,
        )
        token = int(stages.steered.argmax())
        if token in (spec.halt, spec.seal):
            raise _Parted
        pair.tokens.append(token)
        for row in rows:
            _force(logits, row.index, token)


def _check(pair: _Pair, rows: Sequence[Row], *, width: int) -> None:
    """Refuse what no pair in step can look like."""
    tokens, roles = pair.tokens, [row.spec.role for row in rows]
    if pair.dead or len(set(roles)) < len(roles):
        raise _Parted
    for row in rows:
        if row.spec.shared != pair.shared or row.spec.highest >= width:
            raise _Parted
        known = zip(row.written, tokens, strict=False)
        if any(seen not in (PENDING, token) for seen, token in known):
            raise _Parted
        if len(row.written) > len(tokens) and not _is_over(pair):
            raise _Parted
        if len(row.written) < len(tokens) - 1:
            raise _Parted


def _is_over(pair: _Pair) -> bool:
    main = pair.main
    if main is None or main.cover is None:
        return False
    return main.over(pair.tokens, main.cover.place(pair.tokens))


def _push(spec: PairSpec, place: Place, like: Tensor) -> Tensor | None:
    """Return what is added to each token, float32 [n]; None for nothing."""
    if not spec.push or not place.shares:
        return None
    push = torch.zeros_like(like)
    tokens = torch.tensor(list(place.shares), device=like.device)
    push[tokens] = torch.tensor(list(place.shares.values()), device=like.device)
    return spec.push * push


def _seal(rows: Sequence[Row], logits: Tensor) -> None:
    """Seal the twin; the main goes on by itself."""
    for row in rows:
        if row.spec.role == "twin":
            _force(logits, row.index, row.spec.seal)


def _kill(pair: _Pair, rows: Sequence[Row], logits: Tensor) -> None:
    pair.dead = True
    _halt(rows, logits)


def _halt(rows: Sequence[Row], logits: Tensor) -> None:
    for row in rows:
        _force(logits, row.index, row.spec.halt)


def _force(logits: Tensor, index: int, token: int) -> None:
    """Leave a row one token; one that is not in the vocabulary proves nothing either way."""
    logits[index] = -torch.inf
    logits[index, min(token, logits.shape[1] - 1)] = 0.0
