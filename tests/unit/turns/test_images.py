"""A checked image: where it stands, what identifies it, and the bytes that are handed on."""

from __future__ import annotations

import base64
import hashlib
import io
import time

import pytest
from PIL import Image, ImageChops

from safecode_guard.errors import UnreadableImage
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.found import Encoded, Media
from safecode_guard.turns.images import CheckedImage, load

POLICY = ImagePolicy()


def encode(image: Image.Image, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def picture(mode: str = "RGB") -> Image.Image:
    return Image.linear_gradient("L").resize((24, 16)).convert(mode)


def checked(source: bytes | Image.Image) -> CheckedImage:
    (image,) = load(Media(source), POLICY, message_index=2, block_index=1)
    return image


def test_the_place_is_kept_in_images_and_in_errors() -> None:
    assert (checked(picture()).message_index, checked(picture()).block_index) == (2, 1)
    with pytest.raises(UnreadableImage, match="message 2, block 1") as caught:
        checked(b"no image")
    assert (caught.value.message_index, caught.value.block_index) == (2, 1)


def test_the_bytes_that_were_hashed_are_handed_on() -> None:
    data = encode(picture(), "JPEG")
    image = checked(data)
    assert image.file == (data, "image/jpeg")
    assert image.file[0] is data
    assert image.subject.sha256 == hashlib.sha256(data).hexdigest()
    assert image.subject.shown_sha256 is None


@pytest.mark.parametrize("source", [encode(picture("RGBA")), picture(), picture("RGBA")])
def test_judged_pixels_are_handed_on_where_bytes_could_be_read_otherwise(
    source: bytes | Image.Image,
) -> None:
    image = checked(source)
    assert image.subject.shown_sha256 is None  # nothing has been handed on
    data, mime = image.file
    assert mime == "image/png"
    assert ImageChops.difference(Image.open(io.BytesIO(data)), image.pixels).getbbox() is None
    assert image.subject.shown_sha256 == hashlib.sha256(data).hexdigest() != image.sha256
    assert image.file[0] is data  # made once


def test_other_pixels_take_no_bytes_along() -> None:
    image = checked(encode(picture()))
    other = image.with_pixels(Image.new("RGB", (24, 16), "white"))
    assert other.sha256 == image.sha256
    shown = Image.open(io.BytesIO(other.file[0]))
    assert shown.getpixel((3, 3)) == (255, 255, 255)


def test_frames_are_numbered() -> None:
    file = io.BytesIO()
    frames = [Image.new("L", (4, 4), 60 * i) for i in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    found = load(Media(file.getvalue()), POLICY)
    assert [image.frame for image in found] == [0, 1, 2]
    assert all(image.data is None for image in found)
    assert len({image.file[0] for image in found}) == 3


def test_encoded_bytes_are_in_no_representation() -> None:
    assert "data" not in repr(checked(encode(picture())))


@pytest.mark.slow
def test_a_small_image_costs_well_under_a_millisecond() -> None:
    data = encode(Image.effect_noise((96, 96), 50).convert("RGB"))
    text = base64.b64encode(data).decode()

    def once() -> float:
        start = time.perf_counter()
        load(Media(Encoded(text)), POLICY)
        return time.perf_counter() - start

    assert min(once() for _ in range(30)) < 1e-3
