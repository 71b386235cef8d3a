"""Writing files so that a reader sees the old one or the new one, never half of either."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to write into; its files replace those in `folder` on success."""
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the target, since a rename is atomic only within one file system.
    stage = Path(tempfile.mkdtemp(prefix=".staged-", dir=folder.parent))
    try:
        yield stage
        for path in sorted(stage.iterdir()):
            path.chmod(0o644)  # safetensors writes files that only their owner may read.
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
