"""Guided decoding as the authors released it: no cache while guided, then a fresh generation.

Kept for one purpose: to measure what the cached loop saves. It is greedy and takes one turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from safecode_guard.engines.transformers.encoded import PER_TOKEN
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.models.protocol import Sampling
from safecode_guard.turns.turn import Turn


@torch.inference_mode()
def naive_generate(
    model: TransformersModel,
    turn: Turn,
    second: Turn,
    *,
    alpha: float,
    steps: int,
    sampling: Sampling,
) -> Tensor:
    """Run two whole prompts for each guided token, then generate the rest from scratch.

    Returns:
        The answer's token ids, int64 [tokens].
    """
    clean, noised = dict(model.encode([turn]).inputs), dict(model.encode([second]).inputs)
    length = clean["input_ids"].shape[1]
    for _ in range(steps):
        z, z_second = _last(model, clean), _last(model, noised)
        token = (z - alpha * z_second).argmax(-1)
        clean, noised = _grown(clean, token), _grown(noised, token)
    answer: Tensor = model.model.generate(
        **clean, max_new_tokens=sampling.max_tokens - steps, do_sample=False
    )
    return answer[0, length:]


def _last(model: TransformersModel, inputs: Mapping[str, Any]) -> Tensor:
    logits: Tensor = model.model(**inputs, use_cache=False).logits
    return logits[:, -1].float()


def _grown(inputs: Mapping[str, Any], token: Tensor) -> dict[str, Any]:
    """Return inputs with a token appended; masks and types repeat their last entry."""
    grown = dict(inputs)
    for name in PER_TOKEN:
        if name in inputs:
            last = token[:, None] if name == "input_ids" else inputs[name][:, -1:]
            grown[name] = torch.cat([inputs[name], last], 1)
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in grown:
            grown[name][:, -1] = 0
    return grown
