"""Loading a model's parts by name: config, family record, processor, weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from safecode_guard.engines.transformers.processors import load_processor, require_packages
from safecode_guard.errors import ModelError, UnsupportedFamily
from safecode_guard.models.families import RECORD_FILE, Family, family_of


@dataclass(frozen=True, eq=False)
class Parts:
    """What `load_parts` finds under a name."""

    label: str
    """The name without any local path."""
    model: Any
    processor: Any
    family: Family


@dataclass(frozen=True, eq=False)
class Reading:
    """What reads and writes a model's tokens: all of it but the weights."""

    config: Any
    processor: Any
    family: Family
    eos_ids: tuple[int, ...]
    """Of its generation config, or of its config; none: as the tokenizer says."""


def load_reading(name: str, *, local_files_only: bool, revision: str | None) -> Reading:
    """Load what is known of a model without its weights; see `load_parts`."""
    from transformers import AutoConfig

    where = _where(local_files_only, revision)
    config = AutoConfig.from_pretrained(name, **where)
    family = family_of(config, _record(name, where))
    processor = load_processor(name, config=config, family=family, **where)
    return Reading(config, processor, family, _eos_ids(name, config, where))


def load_parts(
    name: str,
    *,
    device: str | None,
    options: Mapping[str, Any],
    processor_options: Mapping[str, Any],
    local_files_only: bool,
    revision: str | None,
) -> Parts:
    """Load a model and its processor; see `TransformersModel.load`.

    Args:
        name: Directory or hub name.
        device: ``auto``, a torch device, or None.
        options: Of the model's ``from_pretrained``; those that are None are left out.
        processor_options: Of the processor's.
        local_files_only: Never look at the hub.
        revision: Commit, tag or branch on the hub.

    Raises:
        UnsupportedFamily: If the architecture cannot be loaded here; says what is missing.
        ModelError: If a package is missing that the options need.
    """
    from transformers import AutoConfig

    where = _where(local_files_only, revision)
    config = AutoConfig.from_pretrained(name, **where)
    family = family_of(config, _record(name, where))
    require_packages(family)
    require_decoder(config)
    processor = load_processor(name, config=config, family=family, **where, **processor_options)
    options = {key: value for key, value in options.items() if value is not None}
    model = _weights(name, device=device, **where, **options)
    label = Path(name).name if Path(name).is_dir() else name
    return Parts(label, model, processor, family)


def _where(local_files_only: bool, revision: str | None) -> dict[str, Any]:
    where: dict[str, Any] = {"local_files_only": True} if local_files_only else {}
    return where | ({} if revision is None else {"revision": revision})


def _eos_ids(name: str, config: Any, where: Mapping[str, Any]) -> tuple[int, ...]:
    from transformers import GenerationConfig

    try:
        ids = GenerationConfig.from_pretrained(name, **where).eos_token_id
    except OSError:  # it has none
        ids = config.get_text_config().eos_token_id
    return () if ids is None else tuple(ids) if isinstance(ids, list) else (int(ids),)


def family_at(name: str) -> Family:
    """Return the record of a model; reads its configuration and no weights.

    Raises:
        UnsupportedFamily: If its ``safecode.json`` cannot be read.
    """
    from transformers import AutoConfig

    return family_of(AutoConfig.from_pretrained(name), _record(name, {}))


def _weights(name: str, *, device: str | None, **options: Any) -> Any:
    from transformers import AutoModelForImageTextToText

    target = None if device is None else target_of(device)
    if target is not None and "quantization_config" in options:
        options.setdefault("device_map", {"": target})  # quantised weights cannot be moved later
    if "device_map" in options and find_spec("accelerate") is None:
        raise ModelError(
            "A device_map needs the package accelerate, which is not installed.",
            hint="Run `pip install accelerate`, or give device instead.",
        )
    try:
        model = AutoModelForImageTextToText.from_pretrained(name, **options)
    except ImportError as error:
        raise ModelError(
            f"The model's options need a package that is not installed: {error}",
            hint="Install it, or leave the option out.",
        ) from error
    return model if target is None or "device_map" in options else model.to(target)


def target_of(name: str | None) -> str:
    """Return the device that a name means; ``auto`` is a GPU where there is one."""
    if name != "auto":
        return name or "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


def _record(name: str, where: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read the model's ``safecode.json``, if it has one."""
    from transformers.utils import cached_file

    path = cached_file(
        name,
        RECORD_FILE,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
        **where,
    )
    if path is None:
        return None
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedFamily(
            f"{path} is not readable JSON: {error}", hint="Correct or remove the file."
        ) from error
    if not isinstance(record, dict):
        raise UnsupportedFamily(f"{path} holds no JSON object.", hint="Correct or remove the file.")
    return record


def require_decoder(config: Any) -> None:
    """Check that the language model is a decoder.

    Raises:
        UnsupportedFamily: If it is an encoder-decoder.
    """
    if config.is_encoder_decoder or config.get_text_config().is_encoder_decoder:
        raise UnsupportedFamily(
            f"{type(config).__name__} describes an encoder-decoder model.",
            hint="Use a decoder-only language model (e.g. Vicuna or OPT in place of T5).",
        )
