"""Plain borders around a picture: a frame, or the bars that make it fit another shape.

A small model that was trained on whole pictures is easily misled by one that is shown smaller
inside a border. A border is only what is of exactly one colour, so nothing can hide in it.
"""

from __future__ import annotations

from collections import Counter

from PIL import Image, ImageChops

Colour = tuple[int, ...]


def without_border(image: Image.Image) -> Image.Image | None:
    """Return what stands inside a plain border; None where there is none.

    A border is made of whole rows and columns of one colour, on two sides of the picture or more:
    one side alone may be a sky. What it leaves has to be a third of the picture each way at least:
    a smaller thing stands on a ground, and not in a frame.

    Args:
        image: An RGB image.
    """
    colour = _colour(image)
    if colour is None:
        return None
    plain = Image.new(image.mode, image.size, colour)
    box = ImageChops.difference(image, plain).getbbox()
    if box is None or any(
        3 * left < whole for left, whole in zip(_size(box), image.size, strict=True)
    ):
        return None
    return image.crop(box)


def _size(box: tuple[int, int, int, int]) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def _colour(image: Image.Image) -> Colour | None:
    """Return the colour that two of the outermost rows and columns have throughout."""
    width, height = image.size
    edges = (
        (0, 0, width, 1),
        (0, height - 1, width, height),
        (0, 0, 1, height),
        (width - 1, 0, width, height),
    )
    plain = Counter(colour for edge in edges if (colour := _only_colour(image.crop(edge))))
    colour, sides = max(plain.items(), key=lambda item: item[1], default=(None, 0))
    return colour if sides >= 2 else None


def _only_colour(strip: Image.Image) -> Colour | None:
    found = strip.getcolors(1)
    colour = found[0][1] if found else None
    return colour if isinstance(colour, tuple) else None
