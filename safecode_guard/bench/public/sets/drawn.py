"""The drawn world of the embedded model as one more benchmark: `bench paired` in short."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from PIL import Image

from safecode_guard.bench.public.items import Benchmark, PublicItem, Side
from safecode_guard.tiny import world

PAIRS: Final = 400
SCARY: Final = 200
SEED: Final = 1
"""As `bench paired` has them."""


def read(folder: Path) -> Iterator[PublicItem]:
    """Yield held-out pairs, and harmless requests that sound dangerous; no directory is read."""
    for pair in world.pairs(PAIRS, split="test", seed=SEED):
        scenes: tuple[tuple[Side, world.Scene], ...] = (
            ("safe", pair.safe),
            ("unsafe", pair.unsafe),
        )
        for side, scene in scenes:
            yield PublicItem(
                id=f"{pair.id}/{side}",
                unit=pair.id,
                side=side,
                turns=(pair.query,),
                pictures=(_png(scene.image),),
                part="pairs",
                category=pair.family,
                caption=scene.caption,
            )
    for scary in world.scary(SCARY, split="test", seed=SEED):
        yield PublicItem(
            id=scary.id,
            unit=scary.id,
            side="safe",
            turns=(scary.query,),
            pictures=(_png(scary.scene.image),),
            part="scary",
            category=scary.scene.family,
        )


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


DRAWN: Final = Benchmark(
    name="drawn",
    title="The drawn world",
    source="this package",
    licence="MIT",
    layout="it is drawn here, and needs no directory",
    read=read,
    paired=True,
    needs_data=False,
)
