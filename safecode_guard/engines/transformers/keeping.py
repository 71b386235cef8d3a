"""What a session takes from the prompts that are kept, and what it leaves there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

from safecode_guard.engines.transformers.kept import Sight
from safecode_guard.engines.transformers.prefix import Prefix, image_end
from safecode_guard.engines.transformers.protocol import Branch, CachedModel, Prompts
from safecode_guard.models.protocol import Sampling, Tool
from safecode_guard.turns.turn import Turn

_LEAST: Final = 16
"""Tokens from which on it pays to continue a prompt without pictures."""
Scopes = Sequence[str | None]
"""Whose each prompt is; see `Sight`."""


@dataclass(frozen=True, eq=False)
class Keeping:
    """The kept prompts of a model, for one session; off where the limit is 0."""

    model: CachedModel
    sampling: Sampling
    limit: int = 0
    """Bytes."""
    tools: tuple[Tool, ...] = ()

    @property
    def on(self) -> bool:
        """Whether prompts are kept at all."""
        kept, family = self.model.kept, self.model.family
        return bool(self.limit) and kept is not None and family.keeps_prompts

    def knows(self, turns: Sequence[Turn], scopes: Scopes) -> bool:
        """Return whether anything is kept that shows what one of some turns shows."""
        store = self.model.kept
        if store is None or not self.on:
            return False
        pairs = zip(turns, scopes, strict=True)
        sights = (Sight.of(turn, self.model.id, scope) for turn, scope in pairs)
        return any(sight is not None and store.knows(sight) for sight in sights)

    def found(self, turns: Sequence[Turn], scopes: Scopes, prompts: Prompts) -> Prefix | None:
        """Return what is kept of some prompts; those of which nothing is are prefilled.

        None if nothing is kept of any. At least one token of each prompt is left.
        """
        hits = self._hits(turns, scopes, prompts) if self.on else {}
        if not hits:
            return None
        parts = [
            Prefix(self.model.resume(branch, self.sampling), [prompts.ids[i]], [length], length)
            for i, (branch, length) in hits.items()
        ]
        for part in parts:
            part.branch.crop(part.lengths)
        missing = [i for i in range(len(turns)) if i not in hits]
        if missing:
            parts.append(self._prefilled([turns[i] for i in missing]))
        places = [*hits, *missing]
        return reduce(Prefix.joined, parts).only([places.index(i) for i in range(len(turns))])

    def put(
        self, turns: Sequence[Turn], scopes: Scopes, ids: Sequence[Sequence[int]], branch: Branch
    ) -> None:
        """Keep prompts, one row of the branch each, for later turns."""
        store = self.model.kept
        if store is None or not self.on or not branch.can_crop:
            return
        if branch.nbytes // branch.rows > self.limit:
            return
        for row, (turn, scope) in enumerate(zip(turns, scopes, strict=True)):
            sight = Sight.of(turn, self.model.id, scope)
            if sight is not None:
                kept = branch.fork() if branch.rows == 1 else branch.fork().select([row])
                kept.watch(None)
                kept.crop([len(ids[row])])
                store.put(sight, ids[row], kept, kept.nbytes, limit=self.limit)

    def _hits(
        self, turns: Sequence[Turn], scopes: Scopes, prompts: Prompts
    ) -> dict[int, tuple[Branch, int]]:
        """Return the kept branch of each prompt that has one, and how much of it is of use."""
        store, hits = self.model.kept, {}
        for i, (turn, scope, ids) in enumerate(zip(turns, scopes, prompts.ids, strict=True)):
            sight = Sight.of(turn, self.model.id, scope)
            if store is None or sight is None:
                continue
            least = image_end(ids, prompts.image_ids) or _LEAST
            hit = store.find(sight, ids, least=least)
            if hit is not None:
                hits[i] = hit
        return hits

    def _prefilled(self, turns: Sequence[Turn]) -> Prefix:
        """Prefill prompts but for their last tokens."""
        prompts = self.model.encode(turns, tools=self.tools)
        lengths = [len(ids) - 1 for ids in prompts.ids]
        branch = self.model.prefill(prompts.cut(lengths), self.sampling)
        return Prefix(branch, prompts.ids, lengths, max(lengths))
