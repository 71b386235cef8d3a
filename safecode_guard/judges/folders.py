"""What a model's name or directory tells without loading it: its name, a digest, its family."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, Final

import safecode_guard
from safecode_guard.errors import UnsupportedFamily
from safecode_guard.models.families import RECORD_FILE, Family, family_of

EMBEDDED: Final = ("light", "nano")
"""Judges that are part of the package, by name."""
_WEIGHTS: Final = Path(safecode_guard.__file__).parent / "tiny" / "weights"
_HUB_NAME: Final = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_IDENTIFYING: Final = frozenset({".json", ".jinja", ".model", ".safetensors", ".bin"})
_PIECE: Final = 65_536
_PIECES: Final = 16
"""Pieces read of a large file, spread over it: other weights differ everywhere."""


def folder_of(model: str) -> str:
    """Return where a model lies: an embedded judge's weights by its name, all else as it is."""
    if model in EMBEDDED and not Path(model).is_dir():
        return str(_WEIGHTS / model)
    return model


def identity_of(model: str) -> str:
    """Return a name for a judge's id, never a path.

    A directory gives its last part and a digest of its files; a hub's name stays as it is.
    """
    folder = Path(model)
    if folder.is_dir():
        return f"{Path(os.path.abspath(folder)).name}@{_digest(folder)}"
    return model if _HUB_NAME.fullmatch(model) else folder.name


def family_in(model: str) -> Family | None:
    """Return the family of the model in a directory; None where it cannot be read from files."""
    config = _read(Path(model) / "config.json")
    record = _read(Path(model) / RECORD_FILE)
    if config is None:
        return None
    vision = config.get("vision_config")
    kinds = SimpleNamespace(
        model_type=config.get("model_type"),
        vision_config=SimpleNamespace(**vision) if isinstance(vision, dict) else None,
    )
    try:
        return family_of(kinds, record)
    except UnsupportedFamily:  # loading the model will say so
        return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _digest(folder: Path) -> str:
    """Return a digest of the names, sizes and parts of the files that make a model what it is."""
    digest = hashlib.sha256()
    files = (path for path in folder.iterdir() if path.suffix in _IDENTIFYING and path.is_file())
    for path in sorted(files):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}:".encode())
        with path.open("rb") as file:
            for piece in _pieces(file, size):
                digest.update(piece)
    return digest.hexdigest()[:12]


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    if size <= _PIECE * _PIECES:
        yield file.read()
        return
    for n in range(_PIECES):
        file.seek(n * (size - _PIECE) // (_PIECES - 1))
        yield file.read(_PIECE)
