"""Plain borders: found where they are, and nothing else taken for one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from safecode_guard.tiny import changes, world
from safecode_guard.turns.borders import without_border

COLOURS = st.tuples(*[st.integers(0, 255)] * 3)
NOISE = Image.frombytes("RGB", (40, 30), random.Random(1).randbytes(3600))


@given(st.tuples(*[st.integers(1, 20)] * 4), COLOURS)
def test_a_frame_is_taken_off_to_the_pixel(border: tuple[int, int, int, int], colour) -> None:
    framed = ImageOps.expand(NOISE, border, colour)
    inside = without_border(framed)
    assert inside is not None
    assert (inside.size, inside.tobytes()) == (NOISE.size, NOISE.tobytes())


@pytest.mark.parametrize("border", [(9, 0), (0, 9), (9, 9, 0, 0), (0, 9, 9, 0)])
def test_two_sides_are_enough(border: tuple[int, ...]) -> None:
    inside = without_border(ImageOps.expand(NOISE, border, (0, 0, 0)))
    assert inside is not None
    assert inside.tobytes() == NOISE.tobytes()


@pytest.mark.parametrize("border", [(9, 0, 0, 0), (0, 9, 0, 0), (0, 0, 9, 0), (0, 0, 0, 9)])
def test_one_side_alone_may_be_a_sky(border: tuple[int, ...]) -> None:
    assert without_border(ImageOps.expand(NOISE, border, (120, 160, 250))) is None


def test_two_sides_of_two_colours_are_a_sky_and_a_floor() -> None:
    below = ImageOps.expand(NOISE, (0, 0, 0, 9), (90, 60, 30))
    assert without_border(ImageOps.expand(below, (0, 9, 0, 0), (120, 160, 250))) is None


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (30, 30)])
def test_a_picture_of_one_colour_is_left_as_it_is(size: tuple[int, int]) -> None:
    assert without_border(Image.new("RGB", size, (7, 7, 7))) is None


@pytest.mark.parametrize("border", [(41, 0), (0, 31), (200, 200), (1, 500)])
def test_a_small_thing_on_a_ground_is_left_where_it_is(border: tuple[int, int]) -> None:
    """Cut out it could be a line that no model takes as a picture."""
    assert without_border(ImageOps.expand(NOISE, border, (255, 255, 255))) is None


def test_a_border_with_anything_in_it_is_part_of_the_picture() -> None:
    framed = ImageOps.expand(NOISE, 20, (0, 0, 0))
    framed.putpixel((3, 4), (0, 0, 1))
    inside = without_border(framed)
    assert inside is not None
    assert inside.size == (57, 46)


@pytest.mark.parametrize("name", ["framed", "letterboxed"])
def test_framed_scenes_come_out_whole(name: str) -> None:
    change = {**changes.PICTURES, **changes.HELD_OUT_PICTURES}[name]
    rng = random.Random(3)
    for seed in range(40):
        image = change(world.draw(seed).image, rng)
        inside = without_border(image)
        assert inside is not None
        assert inside.width * inside.height < image.width * image.height


def test_scenes_as_they_are_hardly_ever_have_one() -> None:
    found = [without_border(world.draw(seed).image) for seed in range(300)]
    assert sum(inside is not None for inside in found) <= 12
