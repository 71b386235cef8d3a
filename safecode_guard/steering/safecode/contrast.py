"""The arithmetic of a guided step: contrast, normalise, modulate, mask. Pure in tensors.

Notation: ``z`` the logits of the real image, ``z~`` those of its second view, both float [n].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from safecode_guard.errors import PolicyError

Normalise = Literal["none", "rescale", "vcd"]
"""Scale of the contrast; see `contrast`."""


@dataclass(frozen=True, eq=False)
class Stages:
    """The logits [n] of one guided step after each of its stages."""

    contrasted: Tensor
    """After contrast and normalisation, z_cd."""
    modulated: Tensor
    """After the push on refusal tokens, z'."""
    steered: Tensor
    """After the plausibility cut: what the next token is chosen from."""


def check_contrast(*, alpha: float, normalise: Normalise) -> None:
    """Refuse a weight of the second view that makes the contrast meaningless.

    Where both views agree the contrast is (1 - alpha) z: above 1 it turns the ranking of all
    tokens round, and at 1 it cannot be rescaled.

    Raises:
        PolicyError: If alpha > 1 without normalisation, or alpha >= 1 with ``rescale``.
    """
    if normalise == "rescale" and alpha >= 1:
        raise PolicyError(
            f"decoding.alpha = {alpha:g} cannot be rescaled: it divides by 1 - alpha.",
            hint="Choose alpha < 1, or decoding.normalise = 'vcd'.",
        )
    if normalise == "none" and alpha > 1:
        raise PolicyError(
            f"decoding.alpha = {alpha:g} turns the ranking of all tokens round.",
            hint="Choose alpha <= 1, or decoding.normalise = 'vcd'.",
        )


def contrast(clean: Tensor, second: Tensor, *, alpha: float, normalise: Normalise) -> Tensor:
    """Return the contrast of two views, z_cd [n] (SafeCoDe, stage 1).

    ``none``: z - alpha z~, the paper's; ``rescale``: that divided by (1 - alpha); ``vcd``:
    (1 + alpha) z - alpha z~. The last two are computed as z + c (z - z~), so that equal views
    give back z exactly. Where a view rules a token out (-inf), the clean view decides alone.
    """
    if alpha == 0:
        return clean
    second = torch.where(second.isfinite(), second, clean)
    if normalise == "none":
        contrasted = clean - alpha * second
    else:
        weight = alpha / (1 - alpha) if normalise == "rescale" else alpha
        contrasted = clean + weight * (clean - second)
    return torch.where(clean.isfinite(), contrasted, clean)


def best(scores: Tensor, *, count: int) -> Tensor:
    """Return which tokens are among the ``count`` best, bool [n]."""
    kept = torch.zeros_like(scores, dtype=torch.bool)
    return kept.scatter_(0, scores.topk(min(count, scores.numel())).indices, True)


def modulate(contrasted: Tensor, push: Tensor, *, top_k: int) -> Tensor:
    """Return z' = z_cd + push on the ``top_k`` best of z_cd (SafeCoDe, stage 2).

    Args:
        contrasted: float [n], z_cd.
        push: float [n]: +lambda_boost or -lambda_supp on refusal tokens, 0 on all others.
        top_k: Refusal tokens beyond the best ``top_k`` are left alone.
    """
    return torch.where(best(contrasted, count=top_k), contrasted + push, contrasted)


def plausible(clean: Tensor, *, beta: float) -> Tensor:
    """Return which tokens the real image makes plausible: z >= max z + log(beta), bool [n]."""
    if beta == 0:
        return torch.ones_like(clean, dtype=torch.bool)
    return clean >= clean.amax() + math.log(beta)


def steer(
    logits: Tensor,
    push: Tensor | None,
    *,
    alpha: float,
    normalise: Normalise,
    top_k: int,
    plausibility: float,
) -> Stages:
    """Run a guided step: contrast -> normalise -> modulate -> mask.

    The cut is there for what the *contrast* lifts out of the tail, so a token that the verdict
    raised is never cut: otherwise no lambda could bring a refusal about that the model finds
    ten times less likely than its best token. With nothing to do (alpha 0, no push, no cut) the
    stages are the clean logits themselves, bit for bit.

    Args:
        logits: float32 [views, n]; row 0 is the real image, row 1 the second view. With one row
            (a turn without images has no second view) there is nothing to contrast.
        push: float32 [n], or None for no modulation.
        alpha: Weight of the second view.
        normalise: Scale of the contrast.
        top_k: Reach of the modulation.
        plausibility: beta of the cut; 0 for none.
    """
    clean = logits[0]
    contrasted = clean
    if logits.shape[0] == 2:
        contrasted = contrast(clean, logits[1], alpha=alpha, normalise=normalise)
    modulated = contrasted if push is None else modulate(contrasted, push, top_k=top_k)
    if plausibility == 0:
        return Stages(contrasted, modulated, modulated)
    kept = plausible(clean, beta=plausibility) | (modulated > contrasted)
    return Stages(contrasted, modulated, modulated.masked_fill(~kept, -torch.inf))
