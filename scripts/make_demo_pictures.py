"""Draw the pictures of ``safecode-guard demo`` into safecode_guard/cli/pictures/."""

from __future__ import annotations

from pathlib import Path

from safecode_guard.tiny.world import draw

FOLDER = Path(__file__).parents[1] / "safecode_guard" / "cli" / "pictures"
SCENES = {
    "park_path.png": (7, "path", False),
    "cliff_edge.jpg": (7, "path", True),
    "toy_gun.png": (7, "toy_gun", False),
}


def make(folder: Path = FOLDER) -> None:
    """Write each scene in the format that its name says."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (seed, family, unsafe) in SCENES.items():
        draw(seed, family, unsafe).image.save(folder / name, quality=92)


if __name__ == "__main__":
    make()
