"""Images of a conversation: bytes from any source, checked against the policy, decoded to RGB.

Everything that can be refused is refused before pixels are decoded: where the bytes come from,
how many they are, their format, and width times height. No path is ever opened from a message.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from safecode_guard.errors import (
    ForbiddenSource,
    ImageError,
    ImageTooLarge,
    PolicyError,
    UnreadableImage,
    UnsupportedMedia,
)
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.blocks import Encoded, Link, Media
from safecode_guard.turns.fetch import fetch_image
from safecode_guard.verdict import SubjectImage

Fetch = Callable[[str, ImagePolicy], bytes]


@dataclass(frozen=True, eq=False)
class CheckedImage:
    """An image that passed the policy's checks, decoded to RGB and turned upright."""

    pixels: Image.Image
    sha256: str
    """Of the encoded bytes as they came; of the binary PPM for an image handed over as pixels."""
    mime: str
    """From the bytes, never from the block."""
    message_index: int
    block_index: int
    frame: int = 0
    """Of an animated file: which of its sampled frames this is."""

    @property
    def subject(self) -> SubjectImage:
        """The image by reference, without pixels."""
        return SubjectImage(
            sha256=self.sha256,
            message_index=self.message_index,
            mime=self.mime,
            width=self.pixels.width,
            height=self.pixels.height,
        )


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

_INLINE_HINT: Final = "Send the image's bytes as base64."


def load(
    media: Media,
    policy: ImagePolicy,
    *,
    message_index: int = 0,
    block_index: int = 0,
    fetch: Fetch = fetch_image,
) -> list[CheckedImage]:
    """Read what a block claims to be an image; animated files give one image per sampled frame.

    Args:
        media: What `blocks.walk` found.
        policy: Limits and allowed sources.
        message_index: Where the image sits, for errors and verdicts.
        block_index: The block within that message.
        fetch: Fetches an allowed https URL.

    Raises:
        ImageError: One of its kinds, with position and remedy.
    """
    with _at(message_index, block_index):
        if isinstance(media.source, Image.Image):
            return _adopt(media.source, policy, message_index, block_index)
        data = read_bytes(media.source, policy, fetch=fetch)
        return _decode(data, policy, message_index, block_index)


def located(error: ImageError, message_index: int, block_index: int) -> ImageError:
    """Return a copy of an error that has no position yet, with its position."""
    return type(error)(
        error.message, hint=error.hint, message_index=message_index, block_index=block_index
    )


def read_bytes(
    source: bytes | Encoded | Link, policy: ImagePolicy, *, fetch: Fetch = fetch_image
) -> bytes:
    """Return the encoded bytes of an image.

    Raises:
        UnreadableImage: If base64 is malformed.
        ImageTooLarge: If text is so long that its bytes are over ``policy.max_bytes``; the bytes
            themselves are counted by `decode`.
        ForbiddenSource: If the source is a path, or a URL that the policy does not allow.
        FetchFailed: If an allowed URL does not answer within its limits.
    """
    if isinstance(source, Encoded):
        return _decode_base64(source.text, policy)
    if isinstance(source, Link):
        return _follow(source.url.strip(), policy, fetch)
    return source


def decode(
    data: bytes, policy: ImagePolicy, *, message_index: int = 0, block_index: int = 0
) -> list[CheckedImage]:
    """Decode encoded bytes to checked RGB images: one, or the sampled frames of an animation.

    Raises:
        ImageTooLarge: Over the policy's byte or pixel limit, found before pixels are decoded.
        UnreadableImage: No image, not of an allowed format, or damaged.
        UnsupportedMedia: Animated, and the policy rejects that; or a file of several pages.
        PolicyError: If the policy allows a format that cannot be checked.
    """
    with _at(message_index, block_index):
        return _decode(data, policy, message_index, block_index)


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
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    upright = rgb if turn is None else rgb.transpose(turn)
    upright.info = {}
    return upright


@contextmanager
def _at(message_index: int, block_index: int) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise located(error, message_index, block_index) from error.__cause__


def _decode(
    data: bytes, policy: ImagePolicy, message_index: int, block_index: int
) -> list[CheckedImage]:
    _check_bytes(len(data), policy)
    formats = _allowed_formats(policy)
    with _damage_reported(), _open(data, formats) as file:
        mime = MIME_TYPES[file.format or ""]
        frames = list(_frames(file, policy))
    sha256 = hashlib.sha256(data).hexdigest()
    return [CheckedImage(frame, sha256, mime, message_index, block_index) for frame in frames]


@contextmanager
def _damage_reported() -> Iterator[None]:
    """Turn what decoders raise on foreign bytes into the error that says so."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(
            "The image has too many pixels.", hint=_size_hint("max_pixels")
        ) from error
    except _DECODER_ERRORS as error:
        raise UnreadableImage(
            f"The image is damaged ({type(error).__name__}).",
            hint="Send the whole file, unchanged.",
        ) from error


def _allowed_formats(policy: ImagePolicy) -> list[str]:
    formats = [name.upper() for name in policy.formats]
    unknown = sorted(set(formats) - set(MIME_TYPES))
    if unknown:
        raise PolicyError(
            f"images.formats names {unknown}, which cannot be checked.",
            hint=f"Use some of {sorted(MIME_TYPES)}.",
        )
    return formats


def _open(data: bytes, formats: list[str]) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError as error:
        raise UnreadableImage(
            "The bytes are no image in an allowed format.", hint=f"Send one of {formats}."
        ) from error


def _frames(file: ImageFile.ImageFile, policy: ImagePolicy) -> Iterator[Image.Image]:
    """Yield the picture, or frames sampled evenly over an animation, the first and last included.

    Frames in between are passed one at a time, for each may enlarge the canvas.
    """
    _check_size(file.size, policy)
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
        file.seek(index)
        _check_size(file.size, policy)
        if index in wanted:
            yield to_rgb(file)


def _count_frames(file: Any, policy: ImagePolicy) -> int:
    count: int = file.n_frames
    pixels = count * file.width * file.height
    if count > MOST_FRAMES or pixels > FRAME_BUDGET * _pixel_limit(policy):
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


def _check_bytes(count: int, policy: ImagePolicy) -> None:
    if count > policy.max_bytes:
        raise ImageTooLarge(
            f"The image has {count} bytes; {policy.max_bytes} are allowed.",
            hint=_size_hint("max_bytes"),
        )


def _check_size(size: tuple[int, int], policy: ImagePolicy) -> None:
    limit = _pixel_limit(policy)
    if size[0] * size[1] > limit:
        raise ImageTooLarge(
            f"The image has {size[0]} x {size[1]} pixels; {limit} are allowed.",
            hint=_size_hint("max_pixels"),
        )


def _pixel_limit(policy: ImagePolicy) -> int:
    # What Pillow warns of is an error here. Its filter is not used: that is global to the process.
    pillow = Image.MAX_IMAGE_PIXELS
    return policy.max_pixels if pillow is None else min(policy.max_pixels, pillow)


def _size_hint(limit: str) -> str:
    return f"Scale the image down, or raise images.{limit} in the policy."


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


def _adopt(
    image: Image.Image, policy: ImagePolicy, message_index: int, block_index: int
) -> list[CheckedImage]:
    """Check an image that was handed over as pixels. Its identity is that of its PPM file."""
    _check_size(image.size, policy)
    with _damage_reported():
        pixels = to_rgb(image)
    header = f"P6\n{pixels.width} {pixels.height}\n255\n".encode()
    sha256 = hashlib.sha256(header + pixels.tobytes()).hexdigest()
    return [CheckedImage(pixels, sha256, MIME_TYPES["PPM"], message_index, block_index)]


def _follow(url: str, policy: ImagePolicy, fetch: Fetch) -> bytes:
    if url[:5].lower() == "data:":
        return _read_data_url(url, policy)
    scheme = url.partition("://")[0].lower() if "://" in url[:12] else ""
    if scheme not in ("http", "https"):
        raise ForbiddenSource(
            "Paths and URLs other than data: and https: are never opened.", hint=_INLINE_HINT
        )
    if not policy.allow_urls:
        raise ForbiddenSource(
            "URLs are not fetched.",
            hint=f"{_INLINE_HINT} Or set images.allow_urls and images.url_hosts.",
        )
    return fetch(url, policy)


def _read_data_url(url: str, policy: ImagePolicy) -> bytes:
    """Read ``data:[mime][;parameters][;base64],payload`` (RFC 2397)."""
    head, comma, payload = url.partition(",")
    if not comma:
        raise UnreadableImage("The data: URL has no payload.", hint=_INLINE_HINT)
    _check_text(payload, policy)
    raw = unquote_to_bytes(payload) if "%" in payload else payload.encode(errors="replace")
    if head.rpartition(";")[2].strip().lower() == "base64":
        return _decode_base64(raw.decode(errors="replace"), policy)
    return raw


def _decode_base64(text: str, policy: ImagePolicy) -> bytes:
    """Decode base64 strictly; line breaks and the URL-safe alphabet are fine."""
    _check_text(text, policy)
    text = "".join(text.split()).replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableImage(
            "The image's base64 is malformed.", hint="Encode the file anew, with its padding."
        ) from error


def _check_text(text: str, policy: ImagePolicy) -> None:
    # Percent-encoding takes three characters for a byte: more than this cannot fit.
    if len(text) > 4 * policy.max_bytes + 1024:
        raise ImageTooLarge(
            f"The encoded image has {len(text)} characters; {policy.max_bytes} bytes are allowed.",
            hint=_size_hint("max_bytes"),
        )
