"""Where in a batch that persists between steps the guided requests are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from safecode_guard.steering.pairs.spec import PairSpec
from safecode_guard_vllm.machine import Pairs, Row
from safecode_guard_vllm.request import spec_of

_log = logging.getLogger(__name__)


class Batch:
    """The guided rows by their index; others are not in it."""

    def __init__(self) -> None:
        self._pairs = Pairs()
        self._rows: dict[int, tuple[PairSpec, Sequence[int]]] = {}

    def remove(self, index: int) -> None:
        """Forget the request at an index."""
        self._rows.pop(index, None)

    def add(self, index: int, params: Any, written: Sequence[int]) -> None:
        """Put a request at an index, in place of what is there.

        Args:
            index: Of the batch.
            params: Its sampling parameters.
            written: Its answer so far, as a list that grows.
        """
        self.remove(index)
        try:
            spec = spec_of(params)
        except ValueError:  # admission refuses it; if it is here all the same, it is not ours
            _log.exception("A guided request came by without having been checked.")
            return
        if spec is not None:
            self._rows[index] = (spec, written)

    def move(self, source: int, target: int, *, swap: bool) -> None:
        """Move a request to another index, or let two change places."""
        moved, other = self._rows.pop(source, None), self._rows.pop(target, None)
        if moved is not None:
            self._rows[target] = moved
        if swap and other is not None:
            self._rows[source] = other

    def apply(self, logits: Tensor) -> Tensor:
        """Steer one step; see `Pairs.apply`."""
        if not self._rows:
            return logits
        rows = [
            Row(index, spec, written)
            for index, (spec, written) in sorted(self._rows.items())
            if index < logits.shape[0]
        ]
        return self._pairs.apply(logits, rows)
