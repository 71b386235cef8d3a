"""The decoding loop: guided steps on one view or two, then free generation on the real image.

One batch holds the clean rows first and then the second views of those rows that contrast. A row
loses its second view when its guided steps are over, and leaves the batch when it has ended, so
that nothing is computed for it any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from safecode_guard.engines.transformers.protocol import Branch
from safecode_guard.errors import ModelError
from safecode_guard.models.protocol import Constraint, FinishReason, LogitsStrategy, Step


@dataclass(eq=False)
class Row:
    """One answer while it is being decoded.

    ``finish`` and ``error`` may be set from outside between two steps, e.g. when a stop sequence
    was seen or a deadline has passed.
    """

    max_tokens: int
    eos_ids: frozenset[int]
    strategy: LogitsStrategy | None = None
    generator: torch.Generator | None = None
    """Draws the tokens; None decodes greedily."""
    constraint: Constraint | None = None
    keeps_hidden: bool = False
    """Keep the states from which each token was chosen."""
    tokens: list[int] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    finish: FinishReason | None = None
    error: Exception | None = None
    guided: bool = field(init=False)
    """Whether the next token is still steered."""

    def __post_init__(self) -> None:
        self.guided = self.strategy is not None and not self.strategy.done(self.tokens)

    @property
    def running(self) -> bool:
        """Whether the answer goes on."""
        return self.finish is None and self.error is None

    @property
    def views(self) -> int:
        """Number of views the next token needs."""
        return 2 if self.guided and self.strategy and self.strategy.second is not None else 1

    def append(self, token: int) -> None:
        """Take a token, and finish the row if it ends the answer."""
        self.tokens.append(token)
        if self.constraint is not None:
            self.constraint.accept(token)
        if token in self.eos_ids or (self.constraint is not None and self.constraint.finished):
            self.finish = "stop"
        elif len(self.tokens) >= self.max_tokens:
            self.finish = "length"
        if self.guided and self.strategy is not None:
            self.guided = not self.strategy.done(self.tokens)


def decode(branch: Branch, rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Decode rows to their ends, yielding after each step the rows that were in it.

    A row whose strategy, grammar or logits fail ends with its ``error``; the others go on.

    Args:
        branch: A prefilled branch. Its rows are ``rows`` in order (the real images), then the
            second views of those with ``row.views == 2``, in the same order.
        rows: The answers to decode; their ``tokens`` grow in place.
    """
    clean = {id(row): i for i, row in enumerate(rows)}
    paired = [row for row in rows if row.views == 2]
    second = {id(row): len(rows) + i for i, row in enumerate(paired)}
    active = list(rows)
    while active:
        _choose(branch, active, clean, second)
        yield active
        active = [row for row in active if row.running]
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
    possible = torch.isfinite(scores.amax(-1)).tolist()
    greedy = scores.argmax(-1).tolist()
    for i, row in enumerate(active):
        if row.error is None and not possible[i]:
            row.error = _no_token()
        if row.error is None:
            _take(branch, row, at[i], scores[i], greedy[i])


def _take(branch: Branch, row: Row, at: int, scores: Tensor, greedy: int) -> None:
    """Take one row's next token from its scores [n]; what fails is the row's own error."""
    try:
        column = greedy if row.generator is None else _draw(scores, row.generator)
        if row.keeps_hidden and branch.hidden is not None:
            row.hidden.append(branch.hidden[at])
        row.append(int(branch.candidates[column]))
    except Exception as error:  # grammars and strategies are foreign code
        row.error = error


def _steered(branch: Branch, row: Row, clean: int, second: int | None) -> Tensor:
    """Return one row's logits [n] after its strategy and its grammar.

    What they raise becomes the row's error, and its logits stay as they were.
    """
    logits = branch.logits[clean]
    try:
        if row.strategy is not None and row.guided:
            logits = _of_width(
                row.strategy.adjust(_step(branch, row, clean, second)), logits.shape[-1]
            )
        if row.constraint is not None:
            logits = logits.masked_fill(~row.constraint.mask().to(logits.device), -torch.inf)
    except Exception as error:  # strategies are foreign code: any error of theirs ends one answer
        row.error = error
        return branch.logits[clean]
    return logits


def _step(branch: Branch, row: Row, clean: int, second: int | None) -> Step:
    """Return what a row's strategy sees."""
    views = [clean] if row.views == 1 or second is None else [clean, second]
    return Step(
        index=len(row.tokens),
        logits=branch.logits[views],
        ids=branch.candidates,
        so_far=torch.tensor(row.tokens, dtype=torch.long, device=branch.logits.device),
        hidden=None if branch.hidden is None else branch.hidden[views],
    )


def _of_width(steered: Tensor, width: int) -> Tensor:
    if tuple(steered.shape) != (width,):
        raise ModelError(
            f"The strategy returned logits of the shape {tuple(steered.shape)}, not ({width},).",
            hint="Return one logit for each candidate, of one view.",
        )
    return steered


def _no_token() -> ModelError:
    return ModelError(
        "The logits leave no token to choose.",
        hint="Loosen the plausibility cut or the grammar, or check the model's weights.",
    )


def _draw(scores: Tensor, generator: torch.Generator) -> int:
    """Draw one column from scores [n]; the same draw as plain ``generate`` makes."""
    return int(torch.multinomial(scores.softmax(-1)[None], 1, generator=generator))
