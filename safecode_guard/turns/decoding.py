"""From an image's bytes to upright RGB pixels, within limits of size and time.

What can be refused is refused before pixels are decoded: the format, width times height, the
number of frames, the passes over them. Decoding itself ends when its time is over.
"""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from safecode_guard.errors import (
    ImageTooLarge,
    PolicyError,
    UnreadableImage,
    UnsupportedMedia,
    listed,
)
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.sources import check_bytes

MIME_TYPES: Final = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # a camera's JPEG with a second view after it; only the first is shown
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "DIB": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "JPEG2000": "image/jp2",
    "PPM": "image/x-portable-pixmap",
}
"""Formats that can be allowed, by Pillow's name; others run programs or hold no plain raster."""

FRAME_BUDGET: Final = 10
"""Pixels of all frames of an animated file together, in multiples of ``max_pixels``.

Frames build on one another, so that all up to the last one sampled must be decoded.
"""

MOST_FRAMES: Final = 3000
"""Frames of an animated file, however small: 20 MB can hold a million of one pixel each."""

SCAN_BUDGET: Final = 20
"""Pixels of all scans of a JPEG together, in multiples of ``max_pixels``.

Cameras write one scan and the web about ten. Each is a pass over all pixels, however few bytes it
has: 44 KB can hold two thousand.
"""

# What Pillow's decoders raise on foreign bytes; found by fuzzing, not from its documentation.
_DECODER_ERRORS: Final = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
    EOFError, RuntimeError, MemoryError, AssertionError, struct.error, zlib.error, Warning,
)  # fmt: skip

_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of EXIF's ``Orientation``."""

_SAME_EVERYWHERE: Final = frozenset({"1", "L", "P", "RGB"})
"""Modes of which every reader makes the same RGB, transparency aside."""

_GAMMA: Final = 0.45455
"""Of the PNG files that everybody writes, and shows without a change."""
_SAME_GAMMA: Final = 0.01

_ANIMATION_MARKS: Final = {"PNG": b"acTL", "WEBP": b"ANIM"}
_JPEG: Final = ("JPEG", "MPO")
_START_OF_SCAN: Final = b"\xff\xda"  # no such bytes occur in a scan's own data
_SMALLEST_SLICE: Final = 256
_SLICES: Final = 4000


@dataclass(frozen=True, eq=False)
class Decoded:
    """The pictures of a file."""

    mime: str
    frames: tuple[Image.Image, ...]
    as_is: bool
    """The one picture is what any reader of the file shows, with nothing composed or turned."""


def decode_file(data: bytes, policy: ImagePolicy, *, deadline: float | None = None) -> Decoded:
    """Decode a file: one picture, or the sampled frames of an animation.

    Args:
        data: The file.
        policy: Its limits; ``decode_timeout_s`` counts from now.
        deadline: When to end at the latest, in seconds of ``time.monotonic``.

    Raises:
        ImageTooLarge: Over a limit of size or time.
        UnreadableImage: No image, not of an allowed format, or damaged.
        UnsupportedMedia: Animated, and the policy rejects that; or a file of several pages.
        PolicyError: If the policy allows a format that cannot be checked.
    """
    formats = allowed_formats(policy)
    timed = _TimedFile(data, _end(policy, deadline))
    with _damage_reported(), _open(timed, formats) as file:
        check_size(file.size, policy)
        _check_scans(file, data, policy)
        file.decodermaxblock = timed.slice
        frames = tuple(_frames(file, policy, timed))
        # Only now: a file may have its transparency and its orientation after its pixels.
        return Decoded(MIME_TYPES[file.format or ""], frames, _is_plain(file, data))


def decode_handed_over(
    image: Image.Image, policy: ImagePolicy, *, deadline: float | None = None
) -> Image.Image:
    """Return a copy of an image object as upright RGB; its file is read now if it was not before.

    Raises:
        ImageTooLarge: Over a limit of size or time.
        UnreadableImage: If the file behind it is damaged.
    """
    check_size(image.size, policy)
    with _damage_reported(), _timed(image, policy, deadline):
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a copy as upright RGB: transparency over white, 16-bit and float samples scaled.

    The copy carries no metadata (EXIF may hold a place and a name).
    """
    image.load()
    if image.mode.startswith("I") or image.mode == "F":
        rgb = _scale_samples(image).convert("RGB")
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, "white")
        rgb.paste(rgba, mask=rgba.getchannel("A"))
    else:
        rgb = image.convert("RGB")
    turn = _UPRIGHT.get(_orientation(image))
    upright = rgb if turn is None else rgb.transpose(turn)
    upright.info = {}
    return upright


def allowed_formats(policy: ImagePolicy) -> list[str]:
    """Return the policy's formats as Pillow names them.

    Raises:
        PolicyError: If one of them cannot be checked.
    """
    formats = [name.upper() for name in policy.formats]
    unknown = sorted(set(formats) - set(MIME_TYPES))
    if unknown:
        raise PolicyError(
            f"images.formats names {unknown}, which cannot be checked.",
            hint=f"Use some of {listed(MIME_TYPES)}.",
        )
    return formats


def check_size(size: tuple[int, int], policy: ImagePolicy) -> None:
    """Check width times height.

    Raises:
        ImageTooLarge: If it is over the limit.
    """
    limit = pixel_limit(policy)
    if size[0] * size[1] > limit:
        raise ImageTooLarge(
            f"The image has {size[0]} x {size[1]} pixels; {limit} are allowed.", hint=_SIZE_HINT
        )


def pixel_limit(policy: ImagePolicy) -> int:
    """Return the policy's limit, or Pillow's own where that is lower."""
    # What Pillow warns of is an error here. Its filter is not used: that is global to the process.
    pillow = Image.MAX_IMAGE_PIXELS
    return policy.max_pixels if pillow is None else min(policy.max_pixels, pillow)


class _TimedFile(io.BytesIO):
    """A file that cannot be read any more once its time is over.

    Decoders are fed in slices, so that a slow one is noticed between two of them.
    """

    def __init__(self, data: bytes, end: float) -> None:
        super().__init__(data)
        self._end = end
        self.slice = max(_SMALLEST_SLICE, len(data) // _SLICES)

    def read(self, size: int | None = -1, /) -> bytes:
        self.check()
        return super().read(size)

    def check(self) -> None:
        if time.monotonic() > self._end:
            raise ImageTooLarge(
                "The image takes too long to decode.",
                hint="Save it anew, smaller; or raise images.decode_timeout_s in the policy.",
            )


def _end(policy: ImagePolicy, deadline: float | None) -> float:
    end = time.monotonic() + policy.decode_timeout_s
    return end if deadline is None else min(end, deadline)


@contextmanager
def _timed(image: Image.Image, policy: ImagePolicy, deadline: float | None) -> Iterator[None]:
    """Read an image object's file within the limits, if it is a JPEG that was not read before.

    Other formats take a time that their pixels bound.
    """
    original = getattr(image, "fp", None)
    if not isinstance(image, ImageFile.ImageFile) or image.format not in _JPEG or original is None:
        yield
        return
    place = original.tell()
    original.seek(0)
    data = original.read(policy.max_bytes + 1)
    original.seek(place)
    check_bytes(len(data), policy)
    _check_scans(image, data, policy)
    timed = _TimedFile(data, _end(policy, deadline))
    timed.seek(place)
    image.fp, image.decodermaxblock = timed, timed.slice
    try:
        yield
    finally:
        if getattr(image, "fp", None) is not None:  # not read to its end: as it was
            image.fp = original
        elif getattr(image, "_exclusive_fp", False):  # Pillow closed the copy instead
            original.close()


@contextmanager
def _damage_reported() -> Iterator[None]:
    """Turn what decoders raise on foreign bytes into the error that says so."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge("The image has too many pixels.", hint=_SIZE_HINT) from error
    except _DECODER_ERRORS as error:
        raise UnreadableImage(
            f"The image is damaged ({type(error).__name__}).",
            hint="Send the whole file, unchanged.",
        ) from error


def _open(file: _TimedFile, formats: list[str]) -> ImageFile.ImageFile:
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        raise UnreadableImage(
            "The bytes are no image in an allowed format.", hint=f"Send one of {listed(formats)}."
        ) from error


def _check_scans(file: ImageFile.ImageFile, data: bytes, policy: ImagePolicy) -> None:
    pixels = file.width * file.height
    if file.format == "TIFF" and "jpeg" in str(file.info.get("compression")):
        tags: Any = getattr(file, "tag_v2", {})
        parts = tags.get(_STRIPS) or tags.get(_TILES)
        pixels //= len(parts) if isinstance(parts, tuple) else 1
    elif file.format not in _JPEG:
        return
    scans = data.count(_START_OF_SCAN)
    if scans * pixels > SCAN_BUDGET * pixel_limit(policy):
        raise ImageTooLarge(
            f"The image takes too long to decode: {scans} scans of {pixels} pixels.",
            hint="Save it anew, without progressive scans.",
        )


_STRIPS: Final = 273
_TILES: Final = 324


def _is_plain(file: ImageFile.ImageFile, data: bytes) -> bool:
    """Return whether all readers of a file show the same picture, and the judge that one too."""
    if file.format == "MPO" or getattr(file, "is_animated", False):
        return False
    mark = _ANIMATION_MARKS.get(file.format or "")
    if mark is not None and mark in data:
        return False  # an animation of one frame, which may differ from the still beside it
    if file.mode not in _SAME_EVERYWHERE or file.has_transparency_data:
        return False
    if file.info.get("icc_profile") or abs(file.info.get("gamma", _GAMMA) - _GAMMA) > _SAME_GAMMA:
        return False  # other colours, and at the worst another picture, to readers that heed them
    return _orientation(file) not in _UPRIGHT


def _orientation(image: Image.Image) -> int:
    value: Any = image.getexif().get(ExifTags.Base.Orientation)
    return value if isinstance(value, int) else 1


def _frames(
    file: ImageFile.ImageFile, policy: ImagePolicy, timed: _TimedFile
) -> Iterator[Image.Image]:
    """Yield the picture, or frames sampled evenly over an animation, the first and last included.

    Frames in between are passed one at a time, for each may enlarge the canvas.
    """
    if file.format == "MPO" or not getattr(file, "is_animated", False):
        yield to_rgb(file)
        return
    if file.format == "TIFF":  # counting the pages of a hostile file takes minutes
        raise UnsupportedMedia("The TIFF file has several pages.", hint="Send each as an image.")
    if policy.animated == "reject":
        raise UnsupportedMedia(
            "The image is animated, which the policy rejects.",
            hint="Send a still, or set images.animated to 'sample'.",
        )
    wanted = _sample(_count_frames(file, policy), policy.max_frames)
    for index in range(wanted[-1] + 1):
        timed.check()
        file.seek(index)
        check_size(file.size, policy)
        if index in wanted:
            yield to_rgb(file)


def _count_frames(file: Any, policy: ImagePolicy) -> int:
    count: int = file.n_frames
    pixels = count * file.width * file.height
    if count > MOST_FRAMES or pixels > FRAME_BUDGET * pixel_limit(policy):
        raise ImageTooLarge(
            f"The animation has {count} frames of {file.width} x {file.height} pixels.",
            hint="Send fewer or smaller frames.",
        )
    return count


def _sample(count: int, most: int) -> list[int]:
    if most == 1:
        return [0]
    most = min(count, most)
    return [index * (count - 1) // (most - 1) for index in range(most)]


def _scale_samples(image: Image.Image) -> Image.Image:
    """Return samples of 16 and 32 bits and floats as 8-bit grey, scaled instead of clipped.

    16-bit samples run from 0 to 65535. Others have no fixed white: integers are taken as 8 or 16
    bits if they fit, floats as 0 to 1 if they fit, and else the image's own range is stretched.
    """
    import numpy as np

    wide = image.mode.startswith("I;16")
    samples: np.typing.NDArray[Any] = np.asarray(image, dtype=np.float32 if wide else np.float64)
    if not np.isfinite(samples).all():
        raise UnreadableImage("The image has samples that are no numbers.")
    low, high = float(samples.min()), float(samples.max())
    if wide:
        low, high = 0.0, 65535.0
    elif low >= 0 and image.mode == "F" and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and image.mode == "I" and high <= 65535:
        low, high = 0.0, 255.0 if high <= 255 else 65535.0
    scaled = (samples - low) * 255.0 / max(high - low, 1e-12)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


_SIZE_HINT: Final = "Scale the image down, or raise images.max_pixels in the policy."
