"""Whether a device or a model is there at all: told at once, before anything is loaded."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

from safecode_guard.errors import ModelError
from safecode_guard.judges.names import is_cached, nearest


def require_device(device: str | None) -> None:
    """Refuse a device that is not here.

    Raises:
        ModelError: If it is none, or not there.
    """
    if device in (None, "auto", "cpu"):
        return
    import torch

    kind, _, number = str(device).partition(":")
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    which = int(number) if number.isdecimal() else 0 if number == "" else None
    if which is None or which >= count.get(kind, 0):
        raise ModelError(
            f"There is no device {device!r} here.",
            hint="Leave --device out, or name cpu, or auto for what there is.",
        )


def require_reachable(name: str) -> None:
    """Refuse a model that is neither a directory nor in the cache, if the hub cannot be asked.

    Raises:
        ModelError: Without the retries of a download that cannot begin.
    """
    if Path(name).is_dir() or is_cached(name):
        return
    if Path(name).is_file():
        raise ModelError(f"{name!r} is a file and no model.", hint="Name the directory it is in.")
    hint = nearest(name) or "Name a directory with a model in it."
    if name.count("/") != 1:
        raise ModelError(f"There is no model {name!r}: no directory of that name.", hint=hint)
    if not _hub_answers():
        raise ModelError(
            f"There is no model {name!r} in the cache, and the hub cannot be reached.", hint=hint
        )


def require_model_at(name: str) -> None:
    """Refuse a model that cannot be had, and a directory that no model was saved in.

    Raises:
        ModelError: As `require_reachable`, or if the directory has no config.json.
    """
    require_reachable(name)
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise ModelError(
            f"The directory {name!r} holds no model: it has no config.json.",
            hint="Name the directory that a model was saved in.",
        )


def _hub_answers() -> bool:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((address.hostname or "", address.port or 443), timeout=5):
            return True
    except OSError:
        return False
