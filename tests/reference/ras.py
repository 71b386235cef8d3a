"""RAS the obvious way: by the state that enters the head, read and edited with a hook.

No cache, one conversation at a time; the model's own head turns states into logits, its cap
included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.turns.turn import Turn
from tests.reference.decode import naive_logits
from tests.reference.steering import softmax


@contextmanager
def edited(vlm: TransformersModel, edit: Any) -> Iterator[None]:
    """Let ``edit`` replace the last position's state [d] on its way into the head."""

    def before(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states = inputs[0].clone()
        states[0, -1] = edit(states[0, -1])
        return (states, *inputs[1:])

    hook = vlm.model.get_output_embeddings().register_forward_pre_hook(before)
    try:
        yield
    finally:
        hook.remove()


def first_states(vlm: TransformersModel, turn: Turn, tokens: int) -> list[Tensor]:
    """Return the states [d] from which the first greedy tokens are chosen."""
    states: list[Tensor] = []

    def read(h: Tensor) -> Tensor:
        states.append(h.detach().clone())
        return h

    out: list[int] = []
    with edited(vlm, read):
        while len(out) < tokens and not vlm.vocabulary.eos_ids.intersection(out):
            out.append(int(naive_logits(vlm, turn, out).argmax()))
    return states


def steered_greedy(
    vlm: TransformersModel, turn: Turn, mu: Sequence[Tensor], c: float, max_tokens: int
) -> tuple[list[int], list[Tensor]]:
    """h <- h + c (mu_n - h) for generated tokens n = 0, 1, 2: ids, and the logits of each."""
    out: list[int] = []
    logits: list[Tensor] = []
    while len(out) < max_tokens and not vlm.vocabulary.eos_ids.intersection(out):
        n = len(out)
        with edited(vlm, lambda h, n=n: h + c * (mu[n] - h) if n < len(mu) else h):
            logits.append(naive_logits(vlm, turn, out))
        out.append(int(logits[-1].argmax()))
    return out, logits


def logits_of(vlm: TransformersModel, turn: Turn, state: Tensor) -> Tensor:
    """Return what the model makes of one state [d]: W mu, capped if it caps."""
    with edited(vlm, lambda h: state):
        return naive_logits(vlm, turn)


def cosine(logits: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    """cos(P, Q) of sum_t 0.3^t softmax(z_t), written out."""
    width = len(logits[0])
    p, q = (
        [sum(0.3**t * softmax(row)[i] for t, row in enumerate(rows)) for i in range(width)]
        for rows in (logits, others)
    )
    dot = sum(a * b for a, b in zip(p, q, strict=True))
    return dot / math.sqrt(sum(a * a for a in p)) / math.sqrt(sum(b * b for b in q))


def certainty(s: float, s0: float) -> float:
    """sigmoid(k (s - s0)), k = ln 99 / (1 - s0)."""
    return 1 / (1 + math.exp(-math.log(99) / (1 - s0) * (s - s0)))


def mean_state(states: Sequence[Sequence[Tensor]], t: int) -> Tensor:
    """mu_t."""
    return torch.stack([rows[t] for rows in states if len(rows) > t]).mean(0)
