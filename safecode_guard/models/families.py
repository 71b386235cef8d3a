"""Model families as data: what each one's templates, processors and caches ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

from safecode_guard.errors import UnsupportedFamily, listed

SizeRule = Literal["fixed", "shortest_edge", "longest_edge", "patch_multiple", "tiles"]
"""How the family's preprocessing arrives at its working size; see `sizes.working_size`."""

RECORD_FILE: Final = "safecode.json"
"""File in a model's directory whose values override its family's record."""
RECORD_SCHEMA: Final = 1


@dataclass(frozen=True)
class Family:
    """One model family. Quirks live here, never in an algorithm."""

    name: str
    model_types: tuple[str, ...] = ()
    """``config.model_type`` values that belong to it."""
    vision_types: tuple[str, ...] = ()
    """If given, only configs whose vision tower has one of these types belong to it."""
    layout: Literal["chat", "plain"] = "chat"
    """``plain``: no chat template; the prompt is the bare question behind its images."""
    plain_image: str = ""
    """Written for each image before a plain prompt; empty: the processor does it by itself."""
    nested_images: bool = False
    """The processor wants a list of images per row instead of one flat list."""
    max_images: int | None = None
    """Images that one row may hold; None: any number."""
    even_images: bool = False
    """Rows of one call must show equally many images (Mllama attends to padded ones)."""
    text_only: bool = True
    """Prompts without any image can be encoded."""
    text_module: str | None = None
    """Submodule that generates where there is no image (BLIP-2, InstructBLIP)."""
    shares_image_prefix: bool = True
    """A prompt prefix that covers the image can be prefilled once and continued in two ways."""
    ragged_extend: bool = True
    """Rows can be continued by blocks of different lengths in one pass (no sliding window)."""
    crops: bool = True
    """Every layer keeps each text token apart, so that rows can be cut back to fewer of them."""
    module_state: tuple[str, ...] = ()
    """Attributes that a forward pass leaves on a module; each branch keeps its own."""
    size_rule: SizeRule = "fixed"
    keeps_image_size: bool = False
    """Token counts depend on the picture's exact size, so the second view must keep it."""
    needs_torchvision: bool = False
    needs_packages: tuple[str, ...] = ()
    judge_prompt: str | None = None
    """The judge's question, with ``{query}``; None: the general one."""
    caption_prompt: str | None = None
    steering: dict[str, Any] = field(default_factory=dict)
    """Tuned values of recipe ``guarded``; empty: the general defaults."""

    @property
    def keeps_prompts(self) -> bool:
        """Whether a prefilled prompt can be kept, cut back, and continued by another turn."""
        return self.shares_image_prefix and self.ragged_extend and self.crops


GENERIC: Final = Family("generic", shares_image_prefix=False, ragged_extend=False, crops=False)
"""The record of architectures that have none: nothing is assumed that could be wrong."""

_MROPE: Final[dict[str, Any]] = {"module_state": ("rope_deltas",), "size_rule": "patch_multiple"}

FAMILIES: Final[tuple[Family, ...]] = (
    # Before llava: the same model_type with another vision tower.
    Family("pixtral", ("llava",), ("pixtral",), size_rule="longest_edge", needs_torchvision=True),
    Family("llava", ("llava", "vipllava"), size_rule="shortest_edge"),
    Family("llava_next", ("llava_next",), size_rule="tiles", keeps_image_size=True),
    Family("llava_onevision", ("llava_onevision",), size_rule="tiles", keeps_image_size=True),
    Family("qwen2_vl", ("qwen2_vl",), **_MROPE),
    Family("qwen2_5_vl", ("qwen2_5_vl",), **_MROPE),
    Family("qwen3_vl", ("qwen3_vl", "qwen3_vl_moe"), **_MROPE),
    # Linear attention folds every token into its state, padding within a row included.
    Family("qwen3_5", ("qwen3_5", "qwen3_5_moe"), ragged_extend=False, crops=False, **_MROPE),
    Family("idefics2", ("idefics2",), nested_images=True, size_rule="longest_edge"),
    Family("idefics3", ("idefics3",), nested_images=True, size_rule="longest_edge"),
    Family(
        "smolvlm",
        ("smolvlm",),
        nested_images=True,
        size_rule="longest_edge",
        needs_packages=("num2words",),
    ),
    # Its Q-Former reads the question, so the image's features differ between two questions.
    Family(
        "instructblip",
        ("instructblip",),
        layout="plain",
        max_images=1,
        text_module="language_model",
        shares_image_prefix=False,
    ),
    Family(
        "blip2",
        ("blip-2",),
        layout="plain",
        max_images=1,
        text_module="language_model",
    ),
    Family("internvl", ("internvl",), size_rule="tiles"),
    Family("gemma3", ("gemma3",), nested_images=True, ragged_extend=False, crops=False),
    # The whole prompt is attended in both directions: a prefix depends on what follows it.
    Family(
        "paligemma",
        ("paligemma",),
        layout="plain",
        nested_images=True,
        text_only=False,
        shares_image_prefix=False,
        plain_image="<image>",
    ),
    # Some of its layers keep the image's tokens and not the text's.
    Family(
        "mllama",
        ("mllama",),
        nested_images=True,
        even_images=True,
        crops=False,
        size_rule="tiles",
    ),
    Family("llama4", ("llama4",), size_rule="tiles", needs_torchvision=True),
    Family("mistral3", ("mistral3",), size_rule="longest_edge", needs_torchvision=True),
    Family("phi4_multimodal", ("phi4_multimodal",), size_rule="tiles", needs_torchvision=True),
)

_OVERRIDES: Final = frozenset(f.name for f in fields(Family)) - {
    "name",
    "model_types",
    "vision_types",
}


def family_of(config: Any, overrides: Mapping[str, Any] | None = None) -> Family:
    """Return the family of a model by its config, `GENERIC` if it has no record.

    Args:
        config: A transformers config; ``model_type`` and the vision tower's are read.
        overrides: Content of a model directory's ``safecode.json``: ``schema`` (1), ``family``
            (a record to start from) and values of `Family` fields.

    Raises:
        UnsupportedFamily: If the overrides name an unknown schema, family or field.
    """
    values = dict(overrides or {})
    if (schema := values.pop("schema", RECORD_SCHEMA)) != RECORD_SCHEMA:
        raise UnsupportedFamily(
            f"{RECORD_FILE} has schema {schema!r}; this version reads {RECORD_SCHEMA}.",
            hint="Upgrade safecode-guard, or write the file anew.",
        )
    name = values.pop("family", None)
    family = _by_config(config) if name is None else _by_name(str(name))
    values.pop("notes", None)
    if unknown := sorted(values.keys() - _OVERRIDES):
        raise UnsupportedFamily(
            f"{RECORD_FILE} has unknown keys {unknown}.", hint=f"Known: {listed(_OVERRIDES)}."
        )
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return replace(family, **values)


def _by_config(config: Any) -> Family:
    model_type = getattr(config, "model_type", None)
    vision = getattr(getattr(config, "vision_config", None), "model_type", None)
    for family in FAMILIES:
        if model_type in family.model_types and (
            not family.vision_types or vision in family.vision_types
        ):
            return family
    return GENERIC


def _by_name(name: str) -> Family:
    known = {family.name: family for family in (*FAMILIES, GENERIC)}
    if name not in known:
        raise UnsupportedFamily(
            f"{RECORD_FILE} names an unknown family {name!r}.", hint=f"Known: {listed(known)}."
        )
    return known[name]
