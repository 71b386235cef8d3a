"""Loads the weights that are part of the package, without any network."""

from pathlib import Path
from typing import Any, Final, Literal, get_args

Name = Literal["chat", "light", "nano"]

WEIGHTS: Final = Path(__file__).parent / "weights"


def weights_path(name: Name) -> Path:
    """Gives the folder of the embedded chat model or of one of its two smaller judges.

    Raises:
        ValueError: If there is no model of that name.
    """
    if name not in get_args(Name):
        raise ValueError(f"no tiny model {name!r}: choose one of {', '.join(get_args(Name))}")
    return WEIGHTS / name


def load(name: Name = "chat") -> tuple[Any, Any]:
    """Loads a tiny model and its processor, ready to generate.

    Example:
        >>> model, processor = load("chat")

    Raises:
        ValueError: If there is no model of that name.
    """
    path = weights_path(name)
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(path, local_files_only=True)
    return model.eval(), AutoProcessor.from_pretrained(path, local_files_only=True)
