"""Contexts for strategies under test."""

from __future__ import annotations

from typing import Any

import torch

from safecode_guard.models.families import Family
from safecode_guard.models.protocol import Vocabulary
from safecode_guard.policy import DecodingPolicy
from safecode_guard.steering.protocol import SteeringContext
from safecode_guard.steering.safecode.parameters import resolve
from safecode_guard.taxonomy import Label
from safecode_guard.verdict import Judgement


def context(
    vocabulary: Vocabulary,
    label: Label | None = "unsafe",
    *,
    certainty: float = 1.0,
    family: str = "test",
    seed: int = 7,
    **decoding: Any,
) -> SteeringContext:
    """Return the context of a turn with a label; parameters come from a decoding policy."""
    return SteeringContext(
        label=label,
        direction="suppress" if label == "safe" else "boost",
        certainty=certainty,
        judgement=Judgement(judge_id="scripted", prompt_version="1", label=label),
        parameters=resolve(DecodingPolicy(**decoding), {}),
        vocabulary=vocabulary,
        family=Family(name=family),
        seed=seed,
    )


def tokens(*ids: int) -> torch.Tensor:
    """Return the tokens generated so far."""
    return torch.tensor(ids, dtype=torch.long)
