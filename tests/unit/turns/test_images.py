"""Limits before decoding, and pixels as a careful viewer shows them."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageFile

from safecode_guard.errors import (
    ForbiddenSource,
    ImageError,
    ImageTooLarge,
    PolicyError,
    UnreadableImage,
    UnsupportedMedia,
)
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns import decoding, sources
from safecode_guard.turns.blocks import Encoded, Link, Media
from safecode_guard.turns.decoding import to_rgb
from safecode_guard.turns.images import decode, load

POLICY = ImagePolicy()


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(size: tuple[int, int] = (24, 16)) -> Image.Image:
    """Return a picture that differs from each of its flips and turns."""
    image = Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", (image, image.rotate(90).resize(size), Image.new("L", size, 40)))


def same(one: Image.Image, two: Image.Image, *, tolerance: int = 0) -> bool:
    if one.size != two.size or one.mode != two.mode:
        return False
    extrema = ImageChops.difference(one, two).getextrema()
    return all(high <= tolerance for _, high in extrema)


def colours(image: Image.Image) -> list[tuple[int, ...]]:
    return [tuple(colour) for row in np.asarray(image).tolist() for colour in row]


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", body), chunk(b"IEND", b""))
    )


def gif_that_grows(first: int, second: int) -> bytes:
    """Return a GIF whose second frame is larger than its canvas."""
    small, large = (encode(Image.new("L", (n, n), 9), "GIF") for n in (first, second))
    assert small[10] == large[10]  # the same size of palette, so that the frames can be joined
    start = 13 + 3 * 2 ** (small[10] % 8 + 1)
    return small[:-1] + large[start:]


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: ImageFile.ImageFile) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_mime_and_hash_come_from_the_bytes(format: str) -> None:
    data = encode(picture(), format)
    (image,) = decode(data, POLICY, message_index=3, block_index=2)
    assert image.mime == f"image/{format.lower()}"
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert image.pixels.mode == "RGB"
    assert (image.message_index, image.block_index) == (3, 2)
    assert (image.subject.width, image.subject.height) == (24, 16)
    assert same(image.pixels, Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_camera_file_with_a_second_view_is_a_jpeg() -> None:
    second = [Image.new("RGB", (24, 16))]
    options = {"quality": 100, "subsampling": 0}
    data = encode(picture(), "MPO", save_all=True, append_images=second, **options)
    (image,) = decode(data, POLICY)
    assert image.mime == "image/jpeg"
    assert same(image.pixels, picture(), tolerance=6)


# -- limits ---------------------------------------------------------------------------------------


def test_bytes_are_counted_before_the_file_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(ImageTooLarge, match="101 bytes; 100 are allowed.*max_bytes"):
        decode(b"\0" * 101, ImagePolicy(max_bytes=100))


def test_huge_base64_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.base64, "b64decode", None)
    for source in (Encoded("A" * 6_000), Link("data:image/png;base64," + "A" * 6_000)):
        with pytest.raises(ImageTooLarge):
            load(Media(source), ImagePolicy(max_bytes=1_000))


def test_base64_is_held_to_the_byte_limit() -> None:
    data = encode(picture())
    text = base64.b64encode(data).decode()
    assert load(Media(Encoded(text)), ImagePolicy(max_bytes=len(data)))
    with pytest.raises(ImageTooLarge):
        load(Media(Encoded(text)), ImagePolicy(max_bytes=len(data) - 1))


def test_letters_outside_base64_are_not_skipped_over() -> None:
    text = base64.b64encode(encode(picture())).decode()
    for broken in (f"{text[:40]}!{text[40:]}", f"{text[:40]}.{text[40:]}", f"{text}\0"):
        with pytest.raises(UnreadableImage, match="malformed"):
            load(Media(Encoded(broken)), POLICY)


@pytest.mark.parametrize("side", [20_000, 8_000, 2**31 - 1])
def test_a_bomb_is_refused_by_its_header(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_decoding(monkeypatch)
    data = png_that_claims(side, side)
    assert len(data) < 200
    with pytest.raises(ImageTooLarge):
        decode(data, POLICY)


def test_pillows_own_limit_holds_where_the_policy_is_wider(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_decoding(monkeypatch)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(ImageTooLarge):
        decode(png_that_claims(10_000, 10_000), ImagePolicy(max_pixels=200_000_000))


@pytest.mark.filterwarnings("error")
def test_warnings_that_are_errors_stay_inside() -> None:
    with pytest.raises(ImageTooLarge):
        decode(png_that_claims(10_000, 10_000), POLICY)


def test_the_pixel_limit_is_exact() -> None:
    data = encode(picture((24, 16)))
    assert decode(data, ImagePolicy(max_pixels=24 * 16))
    with pytest.raises(ImageTooLarge, match="24 x 16"):
        decode(data, ImagePolicy(max_pixels=24 * 16 - 1))


def test_a_frame_that_outgrows_its_canvas_is_refused() -> None:
    assert len(decode(gif_that_grows(4, 8), POLICY)) == 2
    with pytest.raises(ImageTooLarge):
        decode(gif_that_grows(4, 8), ImagePolicy(max_pixels=40))


def test_formats_outside_the_policy_are_not_tried() -> None:
    with pytest.raises(UnreadableImage, match="allowed format"):
        decode(encode(picture(), "BMP"), ImagePolicy(formats=("PNG", "JPEG")))
    with pytest.raises(UnreadableImage):
        decode(encode(picture(), "PPM"), POLICY)
    assert decode(encode(picture(), "PPM"), ImagePolicy(formats=("ppm",)))


def test_formats_that_run_programs_cannot_be_allowed() -> None:
    with pytest.raises(PolicyError, match="EPS"):
        decode(encode(picture(), "EPS"), ImagePolicy(formats=("PNG", "EPS")))


# -- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files_are_unreadable(format: str, share: float) -> None:
    data = encode(Image.effect_noise((64, 64), 90).convert("RGB"), format)
    with pytest.raises(UnreadableImage) as caught:
        decode(data[: int(len(data) * share)], POLICY, message_index=4, block_index=1)
    assert (caught.value.message_index, caught.value.block_index) == (4, 1)
    assert "(message 4, block 1)" in str(caught.value)
    assert caught.value.hint


SEEDS = [encode(picture(), f) for f in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")] + [
    encode(picture(), "GIF", save_all=True, append_images=[Image.new("RGB", (24, 16))]),
    encode(picture(), "PNG", save_all=True, append_images=[Image.new("RGB", (24, 16))]),
    encode(picture(), "WEBP", save_all=True, append_images=[Image.new("RGB", (24, 16))]),
]


@given(
    data=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.floats(0, 1),
)
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_give_pixels_or_a_typed_error(
    data: bytes, edits: list[tuple[float, int]], cut: float
) -> None:
    broken = bytearray(data)
    for place, value in edits:
        broken[int(place * (len(broken) - 1))] = value
    if cut > 0.7:
        del broken[int(len(broken) * cut) :]
    try:
        found = decode(bytes(broken), ImagePolicy(max_pixels=100_000))
    except ImageError:
        return
    assert all(image.pixels.mode == "RGB" for image in found)


def test_nothing_is_no_image() -> None:
    for data in (b"", b"GIF89a", b"<svg/>", b"%PDF-1.7"):
        with pytest.raises(UnreadableImage):
            decode(data, POLICY)


# -- pixels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_are_turned_upright(format: str, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = picture()
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "at home"
    options = {"lossless": True} if format == "WEBP" else {"quality": 100, "subsampling": 0}
    (image,) = decode(encode(stored, format, exif=exif, **options), POLICY)
    assert same(image.pixels, upright, tolerance=6 if format == "JPEG" else 0)
    assert not image.pixels.info
    assert not dict(image.pixels.getexif())


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    levels = np.array([[0, 128, 255, 256, 257], [1000, 32768, 40000, 65407, 65535]], np.uint16)
    for format in ("PNG", "TIFF"):
        (image,) = decode(encode(Image.fromarray(levels), format), POLICY)
        expected = np.rint(levels / 257).astype(np.uint8)
        np.testing.assert_array_equal(np.asarray(image.pixels)[..., 0], expected)
        np.testing.assert_array_equal(np.asarray(image.pixels)[..., 2], expected)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 200.0]], np.float32), [0, 128, 255]),
        (np.array([[5.0, 5.0, 5.0]], np.float32), [0, 0, 0]),
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 25700, 65535]], np.int32), [0, 100, 255]),
        (np.array([[-(2**31), 0, 2**31 - 1]], np.int32), [0, 128, 255]),
    ],
)
def test_floats_and_wide_integers_are_scaled(samples: Any, expected: list[int]) -> None:
    (image,) = decode(encode(Image.fromarray(samples), "TIFF"), POLICY)
    np.testing.assert_array_equal(np.asarray(image.pixels)[0, :, 0], expected)


def test_samples_that_are_no_numbers_are_unreadable() -> None:
    samples = np.array([[0.0, np.nan, np.inf]], np.float32)
    with pytest.raises(UnreadableImage):
        decode(encode(Image.fromarray(samples), "TIFF"), POLICY)


def test_transparency_is_laid_over_white() -> None:
    rgba = Image.new("RGBA", (3, 1))
    rgba.putdata([(255, 0, 0, 255), (0, 0, 0, 0), (0, 0, 0, 128)])
    (image,) = decode(encode(rgba), POLICY)
    assert colours(image.pixels) == [(255, 0, 0), (255, 255, 255), (127, 127, 127)]

    grey = Image.new("LA", (2, 1))
    grey.putdata([(80, 255), (80, 0)])
    (image,) = decode(encode(grey), POLICY)
    assert colours(image.pixels) == [(80, 80, 80), (255, 255, 255)]


@pytest.mark.parametrize(
    ("mode", "key", "expected"),
    [
        ("P", 1, [(200, 10, 10), (255, 255, 255)]),
        ("L", 90, [(30, 30, 30), (255, 255, 255)]),
        ("RGB", (1, 2, 3), [(9, 9, 9), (255, 255, 255)]),
    ],
)
def test_a_transparent_colour_is_laid_over_white(mode: str, key: Any, expected: Any) -> None:
    image = Image.new(mode, (2, 1))
    if mode == "P":
        image.putpalette([200, 10, 10, 0, 0, 0])
    image.putdata({"P": [0, 1], "L": [30, 90], "RGB": [(9, 9, 9), (1, 2, 3)]}[mode])
    (checked,) = decode(encode(image, transparency=key), POLICY)
    assert colours(checked.pixels) == expected


def test_other_modes_become_rgb() -> None:
    base = picture()
    for mode, format in [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("P", "PNG"), ("L", "JPEG")]:
        (image,) = decode(encode(base.convert(mode), format), POLICY)
        assert same(image.pixels, base.convert(mode).convert("RGB"), tolerance=12)
    (image,) = decode(encode(base.convert("1")), POLICY)
    assert same(image.pixels, base.convert("1").convert("RGB"))


def test_a_copy_is_made() -> None:
    original = picture()
    copy = to_rgb(original)
    copy.putpixel((0, 0), (1, 2, 3))
    assert original.getpixel((0, 0)) != (1, 2, 3)


def test_pixels_handed_over_are_checked_before_they_are_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bomb = Image.open(io.BytesIO(png_that_claims(8_000, 8_000)))
    damaged = Image.open(io.BytesIO(encode(picture())[:80]))
    with pytest.raises(UnreadableImage):
        load(Media(damaged), POLICY, message_index=1, block_index=0)
    forbid_decoding(monkeypatch)
    with pytest.raises(ImageTooLarge) as caught:
        load(Media(bomb), POLICY, message_index=1, block_index=5)
    assert (caught.value.message_index, caught.value.block_index) == (1, 5)


# -- animations -----------------------------------------------------------------------------------


def animation(format: str, count: int) -> bytes:
    frames = [Image.new("RGB", (20, 10), (10 + 20 * i, 0, 255 - 20 * i)) for i in range(count)]
    options = {"lossless": True} if format == "WEBP" else {}
    return encode(
        frames[0], format, save_all=True, append_images=frames[1:], duration=100, **options
    )


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_frames_are_sampled_evenly_with_the_first_and_the_last(format: str) -> None:
    data = animation(format, 10)
    found = decode(data, ImagePolicy(max_frames=4))
    reds = [image.pixels.getpixel((5, 5))[0] for image in found]
    assert reds == [10, 70, 130, 190]
    assert {image.sha256 for image in found} == {hashlib.sha256(data).hexdigest()}
    assert [len(decode(data, ImagePolicy(max_frames=n))) for n in (1, 2, 10, 50)] == [1, 2, 10, 10]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_animations_can_be_rejected(format: str) -> None:
    with pytest.raises(UnsupportedMedia, match="animated"):
        decode(animation(format, 3), ImagePolicy(animated="reject"))
    assert decode(encode(picture(), format), ImagePolicy(animated="reject"))


def test_a_file_of_pages_is_refused() -> None:
    data = encode(picture(), "TIFF", save_all=True, append_images=[picture()])
    with pytest.raises(UnsupportedMedia, match="pages"):
        decode(data, POLICY)


@pytest.mark.parametrize(("side", "count"), [(7000, 500), (1, decoding.MOST_FRAMES + 1)])
def test_too_many_frames_are_refused_before_decoding(
    side: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_decoding(monkeypatch)
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    with pytest.raises(ImageTooLarge, match=f"{count} frames"):
        decode(head + frame * count + b";", POLICY)


def test_a_false_count_of_frames_is_refused() -> None:
    data = animation("PNG", 3)
    place = data.index(b"acTL") + 4
    for count in (50, 2**31 - 1):
        chunk = b"acTL" + struct.pack(">II", count, 0)
        forged = (
            data[: place - 4] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[place + 12 :]
        )
        with pytest.raises(ImageError):
            decode(forged, POLICY)


# -- sources --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "/etc/passwd", "etc/passwd", "C:\\a.png", "\\\\host\\share\\a.png",
        "//host/a.png", "ftp://h/a", "https://example.org/a.png", "http://example.org/a.png", "",
        "javascript:alert(1)", "HTTPS://EXAMPLE.ORG/",
    ],
)  # fmt: skip
def test_no_path_is_opened_and_no_url_fetched(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.open", None)
    monkeypatch.setattr("socket.socket.connect", None)
    monkeypatch.setattr("socket.getaddrinfo", None)
    with pytest.raises(ForbiddenSource) as caught:
        load(Media(Link(url)), POLICY, message_index=0, block_index=7)
    assert caught.value.block_index == 7
    assert "base64" in (caught.value.hint or "")


def test_an_allowed_url_is_fetched_and_its_bytes_are_checked() -> None:
    policy = ImagePolicy(allow_urls=True, url_hosts=("example.org",))
    data = encode(picture())
    asked: list[str] = []

    def fetch(url: str, given: ImagePolicy) -> bytes:
        asked.append(url)
        assert given is policy
        return data

    (image,) = load(Media(Link("https://example.org/a.png")), policy, fetch=fetch)
    assert asked == ["https://example.org/a.png"]
    assert image.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.slow
def test_a_small_image_costs_well_under_a_millisecond() -> None:
    data = encode(Image.effect_noise((96, 96), 50).convert("RGB"))
    text = base64.b64encode(data).decode()

    def once() -> float:
        start = time.perf_counter()
        load(Media(Encoded(text)), POLICY)
        return time.perf_counter() - start

    assert min(once() for _ in range(30)) < 1e-3
