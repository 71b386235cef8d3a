"""The decoding loop: guided steps on two views, then free generation on the real image.

One batch holds the clean rows first and then the second views of those rows that contrast. A row
loses its second view when its guided steps are over, and leaves the batch when it has finished, so
that nothing is computed for it any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from safecode_guard.errors import ModelError
from safecode_guard.engines.transformers.protocol import Branch
from safecode_guard.models.protocol import Constraint, FinishReason
from safecode_guard.steering.protocol import LogitsStrategy


@dataclass(eq=False)
class Row:
    """One answer while it is being decoded.

    ``finish`` may be set from outside between two steps, e.g. when a stop sequence was seen.
    """

    max_tokens: int
    eos_ids: frozenset[int]
    strategy: LogitsStrategy | None = None
    generator: torch.Generator | None = None
    """Draws the tokens; None decodes greedily."""
    constraint: Constraint | None = None
    tokens: list[int] = field(default_factory=list)
    finish: FinishReason | None = None

    @property
    def guided(self) -> bool:
        """Whether the next token is still steered."""
        return self.strategy is not None and len(self.tokens) < self.strategy.steps

    @property
    def views(self) -> int:
        """Number of views the next token needs."""
        return self.strategy.views if self.strategy is not None and self.guided else 1

    def append(self, token: int) -> None:
        """Take a token, and finish the row if it ends the answer."""
        self.tokens.append(token)
        if self.constraint is not None:
            self.constraint.accept(token)
        if token in self.eos_ids or (self.constraint is not None and self.constraint.finished):
            self.finish = "stop"
        elif len(self.tokens) >= self.max_tokens:
            self.finish = "length"


def decode(branch: Branch, rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Decode rows to their ends, yielding after each step the rows that got a token.

    Args:
        branch: A prefilled branch. Its rows are ``rows`` in order (the real images), then the
            second views of those with ``row.views == 2``, in the same order.
        rows: The answers to decode; their ``tokens`` grow in place.

    Raises:
        ModelError: If a row's logits leave no token to choose.
    """
    clean = {id(row): i for i, row in enumerate(rows)}
    paired = [row for row in rows if row.views == 2]
    second = {id(row): len(rows) + i for i, row in enumerate(paired)}
    active = list(rows)
    while active:
        _choose(branch, active, clean, second)
        yield active
        active = [row for row in active if row.finish is None]
        if not active:
            return
        paired = [row for row in active if row.views == 2]
        kept = [clean[id(r)] for r in active] + [second[id(r)] for r in paired]
        if len(kept) < branch.rows:
            branch.select(kept)
            clean = {id(row): i for i, row in enumerate(active)}
            second = {id(row): len(active) + i for i, row in enumerate(paired)}
        last = [row.tokens[-1] for row in active] + [row.tokens[-1] for row in paired]
        branch.step(torch.tensor(last, device=branch.logits.device))


def _choose(
    branch: Branch, active: Sequence[Row], clean: dict[int, int], second: dict[int, int]
) -> None:
    """Choose and append the next token of every active row."""
    at = [clean[id(row)] for row in active]
    scores = branch.logits[at] if len(at) < branch.rows else branch.logits  # [rows, n]
    if any(row.guided or row.constraint for row in active):
        scores = torch.stack(
            [_steered(branch, row, clean[id(row)], second.get(id(row))) for row in active]
        )
    scores = branch.warp(scores, at)
    if not torch.isfinite(scores.amax(-1)).all():
        raise ModelError(
            "The logits leave no token to choose.",
            hint="Loosen the plausibility cut or the grammar, or check the model's weights.",
        )
    greedy = scores.argmax(-1).tolist()
    for i, row in enumerate(active):
        column = greedy[i] if row.generator is None else _draw(scores[i], row.generator)
        row.append(int(branch.candidates[column]))


def _steered(branch: Branch, row: Row, clean: int, second: int | None) -> Tensor:
    """Return one row's logits [n] after its strategy and its grammar."""
    logits = branch.logits[clean]
    if row.strategy is not None and row.guided:
        views = [clean] if row.views == 1 or second is None else [clean, second]
        so_far = torch.tensor(row.tokens, dtype=torch.long, device=logits.device)
        logits = row.strategy.adjust(
            len(row.tokens), branch.logits[views], branch.candidates, so_far
        )
    if row.constraint is not None:
        logits = logits.masked_fill(~row.constraint.mask().to(logits.device), -torch.inf)
    return logits


def _draw(scores: Tensor, generator: torch.Generator) -> int:
    """Draw one column from scores [n]; the same draw as plain ``generate`` makes."""
    return int(torch.multinomial(scores.softmax(-1)[None], 1, generator=generator))
