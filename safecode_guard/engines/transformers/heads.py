"""Whether a model's logits are linear in its last state, or capped: measured, not believed.

A config may name a cap that the multimodal class never applies, so one prompt is run, and what the
head gave is compared with what the model made of it.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.errors import UnsupportedFamily
from safecode_guard.models.protocol import Sampling
from safecode_guard.turns.turn import Turn

_NEAR: Final = 1e-3
"""Relative; far below what a cap changes."""


def logit_cap(vlm: TransformersModel, turn: Turn) -> float | None:
    """Return the cap of a model's logits, ``cap tanh(u / cap)``; None if its head is linear.

    Args:
        vlm: The model.
        turn: Any conversation; it is prefilled once.

    Raises:
        UnsupportedFamily: If its logits are neither.
    """
    given: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Tensor) -> None:
        given.append(output[0, -1].detach().float().cpu())

    hook = vlm.model.get_output_embeddings().register_forward_hook(keep)
    try:
        logits = vlm.prefill(vlm.encode([turn]), Sampling(do_sample=False)).logits[0].cpu()
    finally:
        hook.remove()
    cap = getattr(vlm.model.config.get_text_config(), "final_logit_softcapping", None)
    head = given[-1] if given else logits.new_full((), torch.nan)
    if _linear(head, logits):
        return None
    if cap and _alike(cap * torch.tanh(head / cap), logits):
        return float(cap)
    raise UnsupportedFamily(
        f"The logits of {vlm.id!r} are no linear function of its last state, nor a capped one.",
        hint="RAS blends states through the head; use another strategy for this model.",
    )


def _linear(head: Tensor, logits: Tensor) -> bool:
    """Return whether logits are the head's output, by a factor or not; ruled out tokens apart."""
    kept = logits > torch.finfo(torch.float16).min  # below it a model has ruled a token out
    if head.shape != logits.shape or not bool(kept.any()):
        return False
    u, z = head[kept], logits[kept]
    factor = (u @ z) / (u @ u)
    return _alike(factor * u, z)


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= _NEAR * other.abs().max())
