"""Model families as data: what each one's templates, processors and caches ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

SizeRule = Literal["fixed", "shortest_edge", "longest_edge", "patch_multiple", "tiles"]
"""How the family's preprocessing arrives at its working size; see `processors.working_size`."""


@dataclass(frozen=True)
class Family:
    """One model family. Quirks live here, never in an algorithm."""

    name: str
    model_types: tuple[str, ...] = ()
    """``config.model_type`` values that belong to it."""
    layout: Literal["chat", "plain"] = "chat"
    """``plain``: no chat template; the prompt is the bare question (BLIP-2, InstructBLIP)."""
    nested_images: bool = False
    """The processor wants a list of images per row instead of one flat list."""
    shares_image_prefix: bool = True
    """A prompt prefix that covers the image can be prefilled once and continued in two ways."""
    ragged_extend: bool = True
    """Rows can be continued by blocks of different lengths in one pass (no sliding window)."""
    size_rule: SizeRule = "fixed"
    keeps_image_size: bool = False
    """Token counts depend on the picture's exact size, so the second view must keep it."""
    needs_torchvision: bool = False
    needs_packages: tuple[str, ...] = ()
    judge_prompt: str | None = None
    """The judge's question, with ``{query}``; None: the general one."""
    caption_prompt: str | None = None
    steering: dict[str, Any] = field(default_factory=dict)
    """Tuned values of mode ``guarded``; empty: the general defaults."""
