"""Judges by name: an embedded one, a model's directory or hub name, an endpoint's address.

light, nano                             the embedded judges
models/judge, org/judge                 a local model
openai:http://host:8000/v1#model        a model behind an OpenAI-compatible endpoint
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from safecode_guard.errors import PolicyError
from safecode_guard.judges.folders import EMBEDDED, folder_of
from safecode_guard.policy import GuardModelJudgeConfig, JudgeConfig, LocalJudgeConfig, explain

_ENDPOINT: Final = "openai:"
_FORM: Final = "Write it like openai:http://host:8000/v1#model."
_CONFIG: Final[TypeAdapter[JudgeConfig]] = TypeAdapter(JudgeConfig)


def values_of(name: str) -> dict[str, Any]:
    """Return the configuration that a judge's name stands for, as plain data.

    Raises:
        PolicyError: If it is an endpoint's address without a model, or a bare URL.
    """
    if name.startswith(_ENDPOINT):
        url, model = address_of(name.removeprefix(_ENDPOINT))
        return {"kind": "http", "url": url, "model": model}
    if "://" in name:
        raise PolicyError(f"The judge {name!r} is a bare URL.", hint=_FORM)
    return {"kind": "local", "model": name}


def address_of(given: str) -> tuple[str, str]:
    """Return where a model is served, and its name there: ``http://host:8000/v1#model``.

    Raises:
        PolicyError: If it names no endpoint or no model.
    """
    url, _, model = given.partition("#")
    if not url or not model:
        raise PolicyError(f"{given!r} names no endpoint or no model.", hint=_FORM)
    return url, model


def config_of(name: str) -> JudgeConfig:
    """Return the configuration that a judge's name stands for.

    Raises:
        PolicyError: As for `values_of`, or if the address is none.
    """
    try:
        return _CONFIG.validate_python(values_of(name))
    except ValidationError as error:
        raise PolicyError(explain(error), hint=_FORM) from error


def require_model(config: LocalJudgeConfig | GuardModelJudgeConfig) -> None:
    """Refuse a local judge whose model is not there; nothing is loaded.

    Raises:
        PolicyError: If it is neither a model's directory nor a hub's model that may be used; names
            the one that was probably meant.
    """
    folder = Path(folder_of(config.model))
    if (folder / "config.json").is_file():
        return
    if folder.is_dir():
        raise PolicyError(
            f"The directory {config.model!r} of the judge holds no model: it has no config.json.",
            hint="Name the directory that a model was saved in.",
        )
    if config.local_files_only and not is_cached(config.model):
        raise PolicyError(
            f"There is no model {config.model!r} for the judge: no directory of that name, and "
            "none of the hub in the cache.",
            hint=_meant(config.model),
        )


def is_cached(name: str) -> bool:
    """Return whether a model of the hub is in the cache."""
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:  # no name that the hub could have
        return False


def nearest(name: str, known: Sequence[str] = ()) -> str | None:
    """Return a hint at the known name, or the file or folder beside, that a name is like."""
    folder = Path(name).parent
    beside = [str(folder / path.name) for path in folder.iterdir()] if folder.is_dir() else []
    close = difflib.get_close_matches(name, [*known, *beside], n=1)
    return f"Did you mean {close[0]!r}?" if close else None


def _meant(name: str) -> str:
    if hint := nearest(name, EMBEDDED):
        return hint
    return f"Embedded are {' and '.join(map(repr, EMBEDDED))}; an endpoint begins with 'openai:'."
