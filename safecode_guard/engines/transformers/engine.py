"""The engine's face of a model whose caches are in reach."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from safecode_guard.engines.transformers.session import TransformersSession
from safecode_guard.models.protocol import Abilities, Sampling, Tool
from safecode_guard.turns.turn import Turn

if TYPE_CHECKING:
    from safecode_guard.engines.transformers.protocol import CachedModel


class CachedEngine:
    """Makes a `CachedModel` an `Engine`: it opens sessions on forks of its caches."""

    @property
    def abilities(self) -> Abilities:
        """Everything: logits and states are in this process."""
        return Abilities(
            logits=True, hidden_states=True, grammar=True, label_scores=True, batches=True
        )

    def open(
        self, turns: Sequence[Turn], sampling: Sampling, *, tools: Sequence[Tool] = ()
    ) -> TransformersSession:
        """Return a session on some turns; nothing is computed before it is used."""
        return TransformersSession(cast("CachedModel", self), turns, sampling, tools)

    def batch_key(self, turn: Turn, sampling: Sampling, tools: Sequence[Tool]) -> str:
        """Return a key that is equal for turns which can be decoded in one batch."""
        s = sampling
        drawing = [s.do_sample, s.temperature, s.top_p, s.top_k, s.repetition_penalty]
        return json.dumps([len(turn.images), list(tools), drawing], sort_keys=True, default=str)
