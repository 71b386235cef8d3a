"""The size to which a model's preprocessing brings an image, by its family's rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from PIL import Image

from safecode_guard.models.families import Family, SizeRule

Size = tuple[int, int]
"""(width, height), as in Pillow."""


def working_size(processor: Any, family: Family, image: Image.Image) -> Size:
    """Return (width, height) to which the processor resizes an image before it cuts or pads it."""
    rule = _RULES[family.size_rule]
    width, height = rule(processor.image_processor, image.width, image.height)
    return max(1, width), max(1, height)


def _fixed(processor: Any, width: int, height: int) -> Size:
    size = _size(processor, "size")
    if {"height", "width"} <= size.keys():
        return size["width"], size["height"]
    return _shortest_edge(processor, width, height) if "shortest_edge" in size else (width, height)


def _shortest_edge(processor: Any, width: int, height: int) -> Size:
    size = _size(processor, "size")
    if "shortest_edge" not in size:
        return _fixed(processor, width, height)
    short, long = sorted((width, height))
    edge = size["shortest_edge"]
    other = int(edge * long / short)
    return (edge, other) if width <= height else (other, edge)


def _longest_edge(processor: Any, width: int, height: int) -> Size:
    size = _size(processor, "size")
    if "longest_edge" not in size:
        return _fixed(processor, width, height)
    if tile := _size(processor, "max_image_size").get("longest_edge"):
        return _split(processor, width, height, tile)
    edge, least, aspect = size["longest_edge"], size.get("shortest_edge", 1), width / height
    if width >= height and width > edge:
        width, height = edge, int(edge / aspect)
    elif height > edge:
        width, height = int(edge * aspect), edge
    return max(least, width), max(least, height)


def _split(processor: Any, width: int, height: int, tile: int) -> Size:
    """Bring the longer side to its length, then both sides up to whole tiles (Idefics3)."""
    edge, aspect = _size(processor, "size")["longest_edge"], width / height
    if width >= height:
        width, height = edge, _even(edge / aspect)
    else:
        width, height = _even(edge * aspect), edge
    aspect = width / height
    if not processor.do_image_splitting:
        return width, height
    if width >= height:
        width = math.ceil(width / tile) * tile
        return width, math.ceil(int(width / aspect) / tile) * tile
    height = math.ceil(height / tile) * tile
    return math.ceil(int(height * aspect) / tile) * tile, height


def _even(length: float) -> int:
    return int(length) + int(length) % 2


def _patch_multiple(processor: Any, width: int, height: int) -> Size:
    """Round both sides to whole merged patches, within the processor's pixel bounds."""
    factor = processor.patch_size * processor.merge_size
    size = _size(processor, "size")
    least, most = size["shortest_edge"], size["longest_edge"]  # pixels, in spite of their names
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > most:
        shrink = math.sqrt(height * width / most)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif rows * columns < least:
        grow = math.sqrt(least / (height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return columns, rows


def _tiles(processor: Any, width: int, height: int) -> Size:
    """Fit the image into the grid of tiles that the processor would choose for it."""
    if grids := getattr(processor, "image_grid_pinpoints", None):
        return _into_grid(grids, width, height)
    size = _size(processor, "size")
    if {"height", "width"} <= size.keys():
        if most := getattr(processor, "max_patches", None):
            columns, rows = _closest_grid(processor.min_patches, most, size, width, height)
            return columns * size["width"], rows * size["height"]
        if most := getattr(processor, "max_image_tiles", None):
            return _into_canvas(most, size["height"], width, height)
    return _fixed(processor, width, height)


def _into_grid(grids: Sequence[Sequence[int]], width: int, height: int) -> Size:
    """Scale into the [height, width] that keeps most pixels and wastes least (LLaVA-NeXT)."""

    def worth(grid: Sequence[int]) -> tuple[int, int]:
        scale = min(grid[1] / width, grid[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - grid[0] * grid[1]

    rows, columns = max(grids, key=worth)
    across, down = columns / width, rows / height
    if across < down:
        return columns, min(math.ceil(height * across), rows)
    return min(math.ceil(width * down), columns), rows


def _closest_grid(least: int, most: int, size: dict[str, int], width: int, height: int) -> Size:
    """Return (columns, rows) of tiles whose shape is closest to the image's (InternVL)."""
    best, difference = (1, 1), math.inf
    for columns, rows in _grids(least, most):
        distance = abs(width / height - columns / rows)
        roomy = 2 * width * height > size["height"] * size["width"] * columns * rows
        if distance < difference or (distance == difference and roomy):
            best, difference = (columns, rows), distance
    return best


def _into_canvas(most: int, tile: int, width: int, height: int) -> Size:
    """Scale into the canvas of tiles that fits best, growing no larger than needed (Mllama)."""
    canvases = [(columns * tile, rows * tile) for columns, rows in _grids(1, most)]
    scaled = [(min(w / width, h / height), w, h) for w, h in canvases]
    larger = [s for s, _, _ in scaled if s >= 1]
    chosen = min(larger) if larger else max(s for s, _, _ in scaled)
    _, columns, rows = min((s for s in scaled if s[0] == chosen), key=lambda s: s[1] * s[2])
    widest, tallest = min(max(width, tile), columns), min(max(height, tile), rows)
    across, down = widest / width, tallest / height
    if across < down:
        return widest, min(math.floor(height * across) or 1, tallest)
    return min(math.floor(width * down) or 1, widest), tallest


def _grids(least: int, most: int) -> list[Size]:
    """Return all (columns, rows) of at least and at most so many tiles, smallest first."""
    sides = range(1, most + 1)
    grids = [(c, r) for c in sides for r in sides if least <= c * r <= most]
    return sorted(grids, key=lambda grid: grid[0] * grid[1])


def _size(processor: Any, name: str) -> dict[str, int]:
    size = getattr(processor, name, None) or {}
    return {key: int(value) for key, value in dict(size).items() if value is not None}


_RULES: Final[dict[SizeRule, Callable[[Any, int, int], Size]]] = {
    "fixed": _fixed,
    "shortest_edge": _shortest_edge,
    "longest_edge": _longest_edge,
    "patch_multiple": _patch_multiple,
    "tiles": _tiles,
}
