"""Contexts, steps and strategies under test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from safecode_guard.models.families import Family
from safecode_guard.models.protocol import Step, Vocabulary
from safecode_guard.policy import DecodingPolicy
from safecode_guard.steering.protocol import Probe, Probed, SteeringContext
from safecode_guard.steering.safecode.parameters import resolve
from safecode_guard.steering.safecode.reference import ReferenceQuirks
from safecode_guard.steering.safecode.refusals import RefusalLexicon
from safecode_guard.steering.safecode.strategy import SafeCoDe
from safecode_guard.taxonomy import Label
from safecode_guard.turns.images import CheckedImage
from safecode_guard.turns.turn import ImagePart, TextPart, Turn, TurnMessage
from safecode_guard.verdict import Judgement

QUESTION = TextPart("How do I run faster here?")
WORDS = Turn((TurnMessage("user", (QUESTION,)),))
"""A turn without a picture."""
PICTURE = Turn(
    (TurnMessage("user", (ImagePart(0), QUESTION)),),
    (CheckedImage(Image.new("RGB", (8, 6), (90, 120, 30)), "sha", "image/png", 0, 0),),
)


def context(
    vocabulary: Vocabulary,
    label: Label | None = "unsafe",
    *,
    certainty: float = 1.0,
    family: str = "test",
    seed: int = 7,
    turn: Turn = PICTURE,
    probe: Probe | None = None,
) -> SteeringContext:
    """Return the context of a turn with a label."""
    return SteeringContext(
        label=label,
        direction="suppress" if label == "safe" else "boost",
        certainty=certainty,
        judgement=Judgement(judge_id="scripted", prompt_version="1", label=label),
        turn=turn,
        vocabulary=vocabulary,
        family=Family(name=family),
        seed=seed,
        working_size=lambda image: (4, 4),
        probe=probe or _unasked,
    )


def safecode(
    *,
    lexicon: RefusalLexicon | None = None,
    quirks: ReferenceQuirks | None = None,
    **decoding: Any,
) -> SafeCoDe:
    """Return the strategy with the parameters of a decoding policy."""
    parameters = resolve(DecodingPolicy(**decoding), {})
    return SafeCoDe(parameters, lexicon=lexicon, quirks=quirks)


def step(
    logits: Tensor,
    so_far: Sequence[int] = (),
    *,
    ids: Tensor | None = None,
    hidden: Tensor | None = None,
) -> Step:
    """Return the step after some tokens; columns are the whole vocabulary unless ``ids`` says."""
    ids = torch.arange(logits.shape[1]) if ids is None else ids
    return Step(len(so_far), logits, ids, torch.tensor(so_far, dtype=torch.long), hidden)


def _unasked(turns: Sequence[Turn], **options: int | None) -> list[Probed]:
    raise AssertionError("the model is asked nothing here")
