"""Limits before and while decoding, and pixels as a careful viewer shows them."""

from __future__ import annotations

import hashlib
import io
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageFile

from safecode_guard.errors import (
    ImageError,
    ImageTooLarge,
    PolicyError,
    UnreadableImage,
    UnsupportedMedia,
)
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns import decoding
from safecode_guard.turns.decoding import decode_file, decode_handed_over, to_rgb
from safecode_guard.turns.found import Media
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


# -- time -----------------------------------------------------------------------------------------


def progressive(side: int, scans: int, *, refining: bool = False) -> bytes:
    """Return a grey JPEG of many scans, each a few bytes that skip over all of its blocks.

    A refining scan is slower: it looks at every coefficient of every block.
    """

    def segment(marker: int, data: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data

    blocks = (side // 8) ** 2
    runs = ("0" + "1" * 14) * -(-blocks // 32767)  # "32767 blocks without anything", again
    runs += "1" * (-len(runs) % 8)
    skipped = int(runs, 2).to_bytes(len(runs) // 8, "big").replace(b"\xff", b"\xff\0")
    one_code = bytes([1] + [0] * 15)
    bits = 0x10 if refining else 0x00
    parts = [
        b"\xff\xd8",
        segment(0xDB, b"\0" + b"\x01" * 64),
        segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\x00"),
        segment(0xC4, b"\x00" + one_code + b"\x00"),
        segment(0xC4, b"\x10" + one_code + b"\xe0"),
        segment(0xDA, bytes([1, 1, 0, 1, 63, 1 if refining else 0])) + skipped,
        *[segment(0xDA, bytes([1, 1, 0, 1, 63, bits])) + skipped] * (scans - 1),
        b"\xff\xd9",
    ]
    return b"".join(parts)


def test_a_small_file_of_many_scans_is_refused_at_once() -> None:
    data = progressive(7000, 2000)
    assert len(data) < 160_000
    start = time.monotonic()
    with pytest.raises(ImageTooLarge, match="too long to decode: 2000 scans"):
        decode(data, POLICY)
    assert time.monotonic() - start < 1.0


def test_scans_as_cameras_and_the_web_write_them_are_fine() -> None:
    assert decode(progressive(64, 200), POLICY)  # each is a pass over few pixels
    data = encode(picture((320, 240)), "JPEG", progressive=True)
    assert data.count(b"\xff\xda") > 5
    assert decode(data, ImagePolicy(max_pixels=320 * 240))


def test_decoding_ends_when_its_time_is_over() -> None:
    data = progressive(7000, 20, refining=True)
    start = time.monotonic()
    with pytest.raises(ImageTooLarge, match="takes too long to decode") as caught:
        decode(data, ImagePolicy(decode_timeout_s=0.05))
    assert time.monotonic() - start < 0.5
    assert "decode_timeout_s" in (caught.value.hint or "")


def test_decoding_ends_at_the_deadline() -> None:
    now = time.monotonic()
    with pytest.raises(ImageTooLarge, match="takes too long"):
        decode_file(encode(picture()), POLICY, deadline=now - 1)
    assert decode_file(encode(picture()), POLICY, deadline=now + 60).frames


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_animations_are_stopped_between_their_frames(format: str) -> None:
    with pytest.raises(ImageTooLarge, match="takes too long"):
        decode_file(animation(format, 10), POLICY, deadline=time.monotonic() - 1)


def test_an_image_object_is_read_within_the_same_limits() -> None:
    with pytest.raises(ImageTooLarge, match="2000 scans"):
        decode_handed_over(Image.open(io.BytesIO(progressive(7000, 2000))), POLICY)
    slow = Image.open(io.BytesIO(progressive(7000, 20, refining=True)))
    with pytest.raises(ImageTooLarge, match="takes too long"):
        decode_handed_over(slow, ImagePolicy(decode_timeout_s=0.05))
    large = Image.open(io.BytesIO(encode(picture(), "JPEG")))
    with pytest.raises(ImageTooLarge, match="bytes"):
        decode_handed_over(large, ImagePolicy(max_bytes=100))


def test_an_image_object_is_left_as_it_was_found() -> None:
    data = encode(picture(), "JPEG")
    refused = Image.open(io.BytesIO(data))
    with pytest.raises(ImageTooLarge):
        decode_handed_over(refused, POLICY, deadline=time.monotonic() - 1)
    assert same(decode_handed_over(refused, POLICY), Image.open(io.BytesIO(data)).convert("RGB"))
    assert refused.getpixel((0, 0)) is not None  # its own pixels are there


def test_an_image_objects_file_is_closed_when_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(picture(), "JPEG"))
    image = Image.open(path)
    file = image.fp
    decode_handed_over(image, POLICY)
    assert file.closed


# -- what other readers of a file see -------------------------------------------------------------


def oriented(value: int, format: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return encode(picture(), format, exif=exif)


def apng_of_one_frame() -> bytes:
    """Return a PNG whose one animation frame is not the still that plain readers show."""
    data = animation("PNG", 2)
    place = data.index(b"acTL")
    chunk = b"acTL" + struct.pack(">II", 1, 0)
    return data[:place] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[place + 16 :]


AS_IS = {
    "png": encode(picture()),
    "jpeg": encode(picture(), "JPEG"),
    "webp": encode(picture(), "WEBP"),
    "gif": encode(picture(), "GIF"),
    "grey": encode(picture().convert("L")),
    "bilevel": encode(picture().convert("1")),
    "upright": oriented(1),
    "orientation that means nothing": oriented(9),
}

MADE = {
    "alpha": encode(picture().convert("RGBA")),
    "grey with alpha": encode(picture().convert("LA")),
    "transparent colour": encode(picture(), transparency=(1, 2, 3)),
    "transparent palette": encode(picture().convert("P"), transparency=1),
    "turned": oriented(6),
    "turned png": oriented(3, "PNG"),
    "cmyk": encode(picture().convert("CMYK"), "JPEG"),
    "sixteen bits": encode(Image.fromarray(np.zeros((4, 4), np.uint16))),
    "floats": encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"),
    "second view": encode(picture(), "MPO", save_all=True, append_images=[picture()]),
    "animated gif": animation("GIF", 3),
    "animated webp": animation("WEBP", 3),
    "animated png": animation("PNG", 3),
    "animation of one frame": apng_of_one_frame(),
}


@pytest.mark.parametrize("name", AS_IS)
def test_a_plain_picture_is_what_every_reader_shows(name: str) -> None:
    assert decode_file(AS_IS[name], POLICY).as_is


@pytest.mark.parametrize("name", MADE)
def test_a_picture_that_was_made_from_its_file_is_told_apart(name: str) -> None:
    assert not decode_file(MADE[name], POLICY).as_is


def test_an_orientation_after_the_pixels_is_seen() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain, turned = encode(picture()), encode(picture(), exif=exif)
    start = turned.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", turned[start : start + 4])[0]
    late = plain[:-12] + turned[start:end] + plain[-12:]
    decoded = decode_file(late, POLICY)
    assert not decoded.as_is
    assert decoded.frames[0].size == (16, 24)
