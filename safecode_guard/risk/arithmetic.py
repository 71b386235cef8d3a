"""The arithmetic of RAS (arXiv 2510.13698), on logits in place of states. Pure in tensors.

A model's head is linear in its last state: what is averaged or blended of states can be averaged
or blended of logits. A head that caps its logits, ``z = cap tanh(u / cap)``, is linear before the
cap, so the cap is taken off first and put back at the end.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

SURE: Final = 0.99
"""What the certainty of an answer that is the prototype itself comes to."""


def uncapped(z: Tensor, cap: float | None) -> Tensor:
    """Return what the head gave before its cap: ``u = cap artanh(z / cap)``."""
    if cap is None:
        return z
    inside = 1 - torch.finfo(z.dtype).eps
    return cap * torch.atanh((z / cap).clamp(-inside, inside))


def capped(u: Tensor, cap: float | None) -> Tensor:
    """Return the model's logits: ``z = cap tanh(u / cap)``."""
    return u if cap is None else cap * torch.tanh(u / cap)


def mean_logits(rows: Tensor, cap: float | None) -> Tensor:
    """Return the logits [n] of the mean state of some rows [rows, n]: ``W mu``, capped again."""
    return capped(uncapped(rows.double(), cap).mean(0), cap).float()


def blended(z: Tensor, prototype: Tensor, *, share: float, cap: float | None = None) -> Tensor:
    """Return ``z' = (1 - c) z + c W mu`` [n], the logits of ``h + c (mu - h)``.

    At c = 0 it is z itself, bit for bit. Where either rules a token out (-inf), the model's own
    logit stays.

    Args:
        z: float32 [n], the model's logits.
        prototype: float32 [n], those of the mean state of refusals.
        share: c, in [0, 1].
        cap: Of the model's head.
    """
    if share == 0:
        return z
    mixed = capped((1 - share) * uncapped(z, cap) + share * uncapped(prototype, cap), cap)
    return torch.where(z.isfinite() & prototype.isfinite(), mixed, z)


def discounted(logits: Tensor, *, gamma: float) -> Tensor:
    """Return ``sum_t gamma^t softmax(z_t)`` [n] of the logits [tokens, n] of first tokens."""
    weights = gamma ** torch.arange(logits.shape[0], dtype=torch.float64, device=logits.device)
    return (weights[:, None] * logits.double().softmax(-1)).sum(0)


def similarity(logits: Tensor, prototypes: Tensor, *, gamma: float) -> float:
    """Return ``s = cos(P, Q)`` of an answer's first tokens and the prototypes', both [tokens, n].

    An answer that ended sooner is compared with as many tokens of the prototypes as it has.
    """
    ours = discounted(logits, gamma=gamma)
    theirs = discounted(prototypes[: logits.shape[0]], gamma=gamma)
    return float(torch.nn.functional.cosine_similarity(ours, theirs, dim=0))


def certainty(s: float, *, s0: float, k: float) -> float:
    """Return ``c = sigmoid(k (s - s0))``."""
    return float(torch.sigmoid(torch.tensor(k * (s - s0), dtype=torch.float64)))


def steepness(s0: float) -> float:
    """Return ``k = ln 99 / (1 - s0)``: at s = 1 the certainty is 0.99.

    Raises:
        ValueError: If s0 is no similarity below 1.
    """
    if not 0 <= s0 < 1:
        raise ValueError(f"s0 = {s0:g} leaves no room for what is riskier")
    return math.log(SURE / (1 - SURE)) / (1 - s0)
