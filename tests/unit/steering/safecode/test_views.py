from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from safecode_guard.policy import DecodingPolicy
from safecode_guard.steering.safecode.parameters import resolve
from safecode_guard.steering.safecode.views import grey, noised, second_views
from safecode_guard.turns.images import CheckedImage
from safecode_guard.turns.turn import ImagePart, TextPart, Turn, TurnMessage
from tests.reference import steering as naive

WORKING = (224, 168)


def picture(size=(64, 48), mode="RGB"):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(
        mode
    )


def flat(size):
    return Image.new("RGB", size, (128, 128, 128))


def deviation(image, size=None):
    image = image if size is None else image.resize(size, Image.Resampling.BICUBIC)
    return float((np.asarray(image, float) / 255).std())


def turn(*images):
    checked = tuple(CheckedImage(im, f"sha{i}", "image/png", 0, i) for i, im in enumerate(images))
    parts = (*(ImagePart(i) for i in range(len(images))), TextPart("What now?"))
    return Turn((TurnMessage("user", parts),), checked)


def views_of(a_turn, *, seed=1, keeps=False, **decoding):
    return second_views(
        a_turn,
        parameters=resolve(DecodingPolicy(**decoding), {}),
        seed=seed,
        working_size=lambda image: WORKING,
        keeps_image_size=keeps,
    ).pixels


def test_noise_is_the_formula():
    image = picture()
    noise = torch.randn((48, 64, 3), generator=torch.Generator().manual_seed(5)).numpy()
    expected = naive.noised(np.asarray(image), noise, 0.3)
    assert np.array_equal(np.asarray(noised(image, sigma=0.3, seed=5)), expected)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
def test_any_mode_becomes_rgb_of_the_same_size(mode):
    got = noised(picture(mode=mode), sigma=0.1, seed=1)
    assert (got.mode, got.size) == ("RGB", (64, 48))


def test_a_seed_decides_the_draw():
    image = picture()
    same = [noised(image, sigma=0.1, seed=s).tobytes() for s in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


def test_sigma_zero_is_the_picture_itself():
    image = picture()
    assert noised(image, sigma=0, seed=1, size=(10, 10)).tobytes() == image.tobytes()


def test_noise_before_the_resize_is_averaged_away():
    image = noised(flat((1024, 768)), sigma=0.1, seed=1)
    assert deviation(image) == pytest.approx(0.1, rel=0.02)
    assert deviation(image, WORKING) < 0.03


@pytest.mark.parametrize("size", [(1024, 768), (225, 170), (100, 75), WORKING])
def test_noise_after_the_resize_has_its_sigma_there(size):
    image = noised(flat(size), sigma=0.1, seed=1, size=WORKING)
    assert image.size == WORKING
    assert deviation(image) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("size", [(1024, 768), (500, 333), (225, 170), (100, 75), WORKING])
def test_a_picture_that_keeps_its_size_has_sigma_after_the_models_resize(size):
    image = noised(flat(size), sigma=0.1, seed=1, size=WORKING, keep_size=True)
    assert image.size == size
    assert deviation(image, WORKING) == pytest.approx(0.1, rel=0.05)


def test_grey_keeps_the_size_and_nothing_else():
    image = grey(picture())
    assert image.size == (64, 48)
    assert image.getcolors() == [(64 * 48, (128, 128, 128))]


def test_each_image_of_a_turn_gets_its_own_draw():
    a_turn = turn(flat(WORKING), flat(WORKING))
    first, second = views_of(a_turn)
    assert first.tobytes() != second.tobytes()
    assert [v.tobytes() for v in views_of(a_turn)] == [first.tobytes(), second.tobytes()]
    assert views_of(a_turn, seed=2)[0].tobytes() != first.tobytes()
    assert views_of(turn(flat(WORKING)))[0].tobytes() == first.tobytes()


def test_orders_and_sizes():
    a_turn = turn(flat((640, 480)))
    assert views_of(a_turn)[0].size == WORKING
    assert views_of(a_turn, keeps=True)[0].size == (640, 480)
    assert views_of(a_turn, recipe="paper")[0].size == (640, 480)
    assert deviation(views_of(a_turn, keeps=True)[0], WORKING) > 0.095
    assert deviation(views_of(a_turn, recipe="paper")[0], WORKING) < 0.05


def test_the_grey_view_replaces_the_noise():
    assert views_of(turn(picture()), reference_view="grey")[0].getcolors() is not None


def test_only_the_pixels_change():
    a_turn = turn(picture())
    other = second_views(
        a_turn,
        parameters=resolve(DecodingPolicy(), {}),
        seed=1,
        working_size=lambda image: image.size,
        keeps_image_size=False,
    )
    assert other.messages == a_turn.messages
    assert other.subjects == a_turn.subjects
    assert a_turn.pixels[0].tobytes() == picture().tobytes()
