"""Fits RAS's prototypes and thresholds, and tells how they move with fewer examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from safecode_guard.bench.paired.items import Item
from safecode_guard.engines.transformers.heads import logit_cap
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.errors import GuardError
from safecode_guard.models.probing import Probed, probe
from safecode_guard.risk.arithmetic import certainty, discounted, mean_logits, similarity, steepness
from safecode_guard.risk.measure import cautiously, first_logits, visual_contexts
from safecode_guard.risk.prototypes import GAMMA, TOKENS, Fitted, Prototypes
from safecode_guard.turns.turn import Turn

LEAST: Final = 16
"""Turns a side below which nothing is fitted."""
LEAST_REFUSED: Final = 4
"""Refusals below which there is nothing to take the mean of."""
BATCH: Final = 32
ANSWER_TOKENS: Final = 24
"""Enough of an answer to tell a refusal by."""
SIZES: Final = (4, 8, 16, 32, 64, 128)
DRAWS: Final = 200


@dataclass(frozen=True, eq=False)
class Examples:
    """What a model said of labelled turns."""

    refusals: Sequence[Tensor]
    """Of unsafe turns that it refuses when they are asked as they are: logits [tokens, n]."""
    unsafe: Sequence[Tensor]
    """Of the first tokens behind the safety prompt, for unsafe turns: logits [tokens, n]."""
    safe: Sequence[Tensor]
    cap: float | None

    @property
    def a_side(self) -> int:
        """How many unsafe turns, and as many safe ones, there are."""
        return min(len(self.unsafe), len(self.safe))


@dataclass(frozen=True)
class Moved:
    """s0 and k where only so many turns a side are known, over draws with replacement."""

    a_side: int
    s0: float
    low: float
    high: float
    """95 % of the draws lie between them."""


def examples_of(
    model: TransformersModel,
    items: Sequence[Item],
    is_refusal: Callable[[str], bool],
    *,
    on_done: Callable[[int], None] = lambda count: None,
) -> Examples:
    """Ask a model about labelled turns, as RAS asks and as they are.

    Raises:
        GuardError: If there are too few turns a side, or too few of them are refused.
    """
    unsafe = [item.turn for item in items if item.truth == "unsafe"]
    safe = [item.turn for item in items if item.truth == "safe"]
    if min(len(unsafe), len(safe)) < LEAST:
        raise GuardError(
            f"There are {len(unsafe)} unsafe and {len(safe)} safe turns.",
            hint=f"RAS is fitted on {LEAST} a side or more.",
        )
    ask = partial(probe, model, together=True)

    def behind(turns: Sequence[Turn]) -> list[Tensor]:
        found = []
        for some in _chunks(turns):
            answers = cautiously(ask, some, visual_contexts(ask, some))
            found += [first_logits(answer) for answer in answers]
            on_done(len(some))
        return found

    refused: list[Probed] = []
    for some in _chunks(unsafe):
        answers = ask(some, max_tokens=ANSWER_TOKENS, first_logits=TOKENS)
        refused += [answer for answer in answers if is_refusal(answer.text)]
        on_done(len(some))
    if len(refused) < LEAST_REFUSED:
        raise GuardError(
            f"The model refuses {len(refused)} of {len(unsafe)} unsafe turns: there is no refusal "
            "of its own to steer towards.",
            hint=f"Give it turns that it refuses, {LEAST_REFUSED} at least.",
        )
    refusals = [first_logits(answer) for answer in refused]
    return Examples(refusals, behind(unsafe), behind(safe), logit_cap(model, unsafe[0]))


def fitted(examples: Examples, *, engine_id: str, data: str) -> Prototypes:
    """Return the prototypes of examples, with s0 their balanced mean similarity.

    Raises:
        GuardError: If nothing is less similar to a refusal than a refusal is.
    """
    logits = prototypes_of(examples.refusals, examples.cap)
    unsafe, safe = (_similarities(rows, logits) for rows in (examples.unsafe, examples.safe))
    s0 = float(unsafe.mean() + safe.mean()) / 2
    return Prototypes(
        logits,
        Fitted(
            engine_id=engine_id,
            s0=s0,
            k=_steepness(s0),
            cap=examples.cap,
            refused=len(examples.refusals),
            examples=len(unsafe) + len(safe),
            data=data,
        ),
    )


def prototypes_of(refusals: Sequence[Tensor], cap: float | None) -> Tensor:
    """Return ``W mu_t`` for each token t, float32 [tokens, n], of the answers that have one."""
    length = min(TOKENS, max(len(rows) for rows in refusals))
    return torch.stack(
        [
            mean_logits(torch.stack([rows[t] for rows in refusals if len(rows) > t]), cap)
            for t in range(length)
        ]
    )


def moved(examples: Examples, *, seed: int) -> list[Moved]:
    """Return how s0 moves with fewer turns: turns and refusals are drawn with replacement."""
    rng = np.random.default_rng(seed)
    unsafe, safe = (_discounted(rows) for rows in (examples.unsafe, examples.safe))
    found = []
    for size in (size for size in SIZES if size <= examples.a_side):
        values = []
        for _ in range(DRAWS):
            chosen = rng.integers(len(examples.refusals), size=min(size, len(examples.refusals)))
            logits = prototypes_of([examples.refusals[i] for i in chosen], examples.cap)
            mean = discounted(logits, gamma=GAMMA)
            sides = [rows[rng.integers(len(rows), size=size)] for rows in (unsafe, safe)]
            each = [torch.nn.functional.cosine_similarity(rows, mean[None]) for rows in sides]
            values.append(float(each[0].mean() + each[1].mean()) / 2)
        low, high = np.percentile(values, [2.5, 97.5])
        found.append(Moved(size, float(np.mean(values)), float(low), float(high)))
    return found


def separation(examples: Examples, made: Prototypes) -> dict[str, float]:
    """Return what the certainty is worth on the examples themselves, in percent.

    ``ranked``: of pairs of an unsafe and a safe turn, those in which the unsafe one is the riskier.
    """
    numbers = made.fitted
    unsafe, safe = (_similarities(rows, made.logits) for rows in (examples.unsafe, examples.safe))
    c_unsafe, c_safe = (
        np.array([certainty(float(s), s0=numbers.s0, k=numbers.k) for s in side])
        for side in (unsafe, safe)
    )
    wins = (unsafe[:, None] > safe[None]).mean() + 0.5 * (unsafe[:, None] == safe[None]).mean()
    return {
        "unsafe_above": 100 * float((c_unsafe >= 0.5).mean()),
        "safe_above": 100 * float((c_safe >= 0.5).mean()),
        "ranked": 100 * float(wins),
    }


def _similarities(rows: Sequence[Tensor], logits: Tensor) -> np.ndarray:
    return np.array([similarity(each, logits, gamma=GAMMA) for each in rows])


def _discounted(rows: Sequence[Tensor]) -> Tensor:
    return torch.stack([discounted(each, gamma=GAMMA) for each in rows])


def _steepness(s0: float) -> float:
    try:
        return steepness(s0)
    except ValueError as error:
        raise GuardError(
            f"All turns look like refusals to the model (s0 = {s0:g}).",
            hint="RAS cannot tell them apart here; use a judge.",
        ) from error


def _chunks(turns: Sequence[Turn]) -> list[Sequence[Turn]]:
    return [turns[start : start + BATCH] for start in range(0, len(turns), BATCH)]
