"""Decoding the obvious way: the whole prompt anew for every token, and no cache.

The oracle of the cached branches and of the guided loop. Slow, greedy, one answer at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.turns.turn import Turn

Adjust = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""``adjust(step, logits [2, V], ids [V], so_far [step]) -> [V]``, as `LogitsStrategy.adjust`."""
SUFFIX_TYPE = {"paligemma": 1}
"""``token_type_ids`` of an answer's tokens where it is not 0: there 0 is the two-way prefix."""


def naive_logits(vlm: TransformersModel, turn: Turn, so_far: Sequence[int] = ()) -> Tensor:
    """Return float32 logits [V] of the token after a conversation and the tokens ``so_far``."""
    inputs = _grown(vlm, dict(vlm.encode([turn]).inputs), so_far)
    with torch.inference_mode():
        logits: Tensor = _module(vlm, inputs)(**inputs, use_cache=False).logits
    return logits[0, -1].float().clone()


def naive_greedy(vlm: TransformersModel, turn: Turn, max_tokens: int) -> list[int]:
    """Return the ids of the greedy answer, its end token included."""
    out: list[int] = []
    while len(out) < max_tokens and not vlm.vocabulary.eos_ids.intersection(out):
        out.append(int(naive_logits(vlm, turn, out).argmax()))
    return out


def naive_guided(
    vlm: TransformersModel,
    clean_turn: Turn,
    noised_turn: Turn,
    adjust: Adjust,
    steps: int,
    max_tokens: int,
) -> list[int]:
    """Return the ids of the greedy answer whose first ``steps`` tokens are steered.

    Both views are followed by the tokens that were chosen; after the guided steps the clean view
    alone decides. The end token is included.
    """
    out: list[int] = []
    while len(out) < max_tokens and not vlm.vocabulary.eos_ids.intersection(out):
        logits = naive_logits(vlm, clean_turn, out)
        if len(out) < steps:
            views = torch.stack([logits, naive_logits(vlm, noised_turn, out)])
            ids = torch.arange(views.shape[1])
            logits = adjust(len(out), views, ids, torch.tensor(out, dtype=torch.long))
        out.append(int(logits.argmax()))
    return out


def _module(vlm: TransformersModel, inputs: dict[str, Any]) -> Any:
    inner = vlm.family.text_module
    return vlm.model if inner is None or "pixel_values" in inputs else getattr(vlm.model, inner)


def _grown(vlm: TransformersModel, inputs: dict[str, Any], tokens: Sequence[int]) -> dict[str, Any]:
    """Append text tokens to every per-token input of a single row."""
    if vlm.family.text_module is not None and "pixel_values" not in inputs:
        inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    added = torch.tensor([list(tokens)], dtype=torch.long)
    kind = SUFFIX_TYPE.get(vlm.model.config.model_type, 0)
    fill = {"attention_mask": 1, "token_type_ids": kind, "mm_token_type_ids": 0}
    grown = dict(inputs)
    grown["input_ids"] = torch.cat([inputs["input_ids"], added], 1)
    for key, value in fill.items():
        if key in inputs:
            grown[key] = torch.cat([inputs[key], torch.full_like(added, value)], 1)
    if "cross_attention_mask" in inputs:
        mask = inputs["cross_attention_mask"]
        grown["cross_attention_mask"] = torch.cat(
            [mask, mask[:, -1:].expand(-1, len(tokens), -1, -1)], 1
        )
    return grown
