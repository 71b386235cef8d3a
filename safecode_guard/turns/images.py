"""Images of a conversation: checked against the policy, decoded, and identified by their bytes.

Where the bytes are is `sources`, what they show is `decoding`, what is known to be whole before it
is decoded is `intact`, and what was read before is `pictures`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock

from PIL import Image

from safecode_guard.errors import ImageError
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.decoding import MIME_TYPES, decode_file, decode_handed_over
from safecode_guard.turns.fetch import fetch_image
from safecode_guard.turns.found import File, Media
from safecode_guard.turns.intact import size_of_intact
from safecode_guard.turns.pictures import Limits, PictureStore
from safecode_guard.turns.sources import Fetch, is_inline, read_bytes
from safecode_guard.verdict import SubjectImage


class Png:
    """The PNG of an image's pixels, made when it is first asked for and kept."""

    sha256: str | None = None
    """Of the file, if it has been made."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._data: bytes | None = None

    def of(self, pixels: Image.Image) -> bytes:
        """Return the file; only the first call looks at the pixels."""
        with self._lock:
            if self._data is None:
                self._data = to_png(pixels)
                self.sha256 = hashlib.sha256(self._data).hexdigest()
            return self._data


class Undecoded:
    """A file that is whole, of which the pixels are made when somebody first looks at them."""

    def __init__(self, data: bytes, size: tuple[int, int], policy: ImagePolicy) -> None:
        self.size = size
        self._data, self._policy = data, policy
        self._lock = Lock()
        self._pixels: Image.Image | None = None

    @property
    def pixels(self) -> Image.Image:
        """The picture; only the first call decodes the file."""
        with self._lock:
            if self._pixels is None:
                (self._pixels,) = decode_file(self._data, self._policy).frames
            return self._pixels


@dataclass(frozen=True, eq=False)
class CheckedImage:
    """An image that passed the policy's checks, as upright RGB.

    Its pixels are shared by everyone who was given it: draw on a copy.
    """

    picture: Image.Image | Undecoded
    """The pixels, or a file that is known to hold them."""
    sha256: str
    """Of the encoded bytes as they came; of the binary PPM for an image handed over as pixels."""
    mime: str
    """From the bytes, never from the block."""
    message_index: int
    block_index: int
    """-1 where it stands outside the message's content."""
    frame: int = 0
    """Of an animated file: which of its sampled frames this is."""
    data: bytes | None = field(default=None, repr=False)
    """The encoded bytes, where every reader of them shows these very pixels."""
    view: str | None = ""
    """What was made of the picture, such as its noise and seed; empty: these are its own pixels;
    None: others, and nothing tells which."""
    png: Png = field(default_factory=Png, repr=False)
    """What is handed on where there is no ``data``."""

    @property
    def pixels(self) -> Image.Image:
        """The picture; made now, once, if nobody has looked at it before.

        Raises:
            ImageError: If that takes too long on a machine that is far too busy.
        """
        return self.picture if isinstance(self.picture, Image.Image) else self.picture.pixels

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, without looking at a pixel."""
        return self.picture.size

    @property
    def subject(self) -> SubjectImage:
        """The image by reference, without pixels."""
        width, height = self.size
        return SubjectImage(
            sha256=self.sha256,
            message_index=self.message_index,
            mime=self.mime,
            width=width,
            height=height,
            shown_sha256=self.png.sha256,
        )

    @property
    def file(self) -> tuple[bytes, str]:
        """The bytes to hand on to a model that is given files, and their mime type.

        They are the ones that were hashed, or a PNG of the pixels where those bytes could be
        read in another way: frames, transparency, rotation, wide samples, pixels handed over.
        """
        if self.data is not None:
            return self.data, self.mime
        return self.png.of(self.pixels), MIME_TYPES["PNG"]

    def with_pixels(self, pixels: Image.Image, *, view: str | None = None) -> CheckedImage:
        """Return the image with other pixels in the place of its own; ``view`` tells which."""
        return replace(self, picture=pixels, view=view, data=None, png=Png())


def load(
    media: Media,
    policy: ImagePolicy,
    *,
    message_index: int = 0,
    block_index: int = 0,
    fetch: Fetch = fetch_image,
    pictures: PictureStore | None = None,
    deadline: float | None = None,
) -> list[CheckedImage]:
    """Read what a block claims to be an image; animated files give one image per sampled frame.

    Args:
        media: What `blocks.walk` found.
        policy: Limits and allowed sources.
        message_index: Where the image sits, for errors and verdicts.
        block_index: The block within that message.
        fetch: Fetches an allowed https URL.
        pictures: Keeps what was decoded, and is asked first.
        deadline: When to end at the latest, in seconds of ``time.monotonic``.

    Raises:
        ImageError: One of its kinds, with position and remedy.
    """
    source = media.source
    with _at(message_index, block_index):
        if isinstance(source, Image.Image):
            found: tuple[CheckedImage, ...] = (_adopt(source, policy, deadline),)
        elif pictures is None:
            data = read_bytes(source, policy, fetch=fetch, deadline=deadline)
            found = _decode(data, policy, hashlib.sha256(data).hexdigest(), deadline)
        else:
            found = _recall(source, policy, fetch, pictures, deadline)
    return [replace(i, message_index=message_index, block_index=block_index) for i in found]


def decode(
    data: bytes, policy: ImagePolicy, *, message_index: int = 0, block_index: int = 0
) -> list[CheckedImage]:
    """Decode encoded bytes to checked RGB images: one, or the sampled frames of an animation.

    Raises:
        ImageTooLarge: Over a limit of bytes, pixels or time.
        UnreadableImage: No image, not of an allowed format, or damaged.
        UnsupportedMedia: Animated, and the policy rejects that; or a file of several pages.
        PolicyError: If the policy allows a format that cannot be checked.
    """
    return load(Media(data), policy, message_index=message_index, block_index=block_index)


def located(error: ImageError, message_index: int, block_index: int) -> ImageError:
    """Return a copy of an error that has no position yet, with its position."""
    return type(error)(
        error.message, hint=error.hint, message_index=message_index, block_index=block_index
    )


def to_png(pixels: Image.Image) -> bytes:
    """Return pixels as a PNG file; quickly, for the file is not kept for long."""
    file = io.BytesIO()
    pixels.save(file, "PNG", compress_level=1)
    return file.getvalue()


@contextmanager
def _at(message_index: int, block_index: int) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise located(error, message_index, block_index) from error.__cause__


def _recall(
    source: File,
    policy: ImagePolicy,
    fetch: Fetch,
    pictures: PictureStore,
    deadline: float | None,
) -> tuple[CheckedImage, ...]:
    """Return images that are kept, by their source or their bytes; or decode and keep them."""
    limits = Limits.of(policy)
    known = source if is_inline(source) else None
    if known is not None and (kept := pictures.by_source(known, limits)):
        return kept
    data = read_bytes(source, policy, fetch=fetch, deadline=deadline)
    sha256 = hashlib.sha256(data).hexdigest()
    found = pictures.by_sha256(sha256, limits) or _decode(data, policy, sha256, deadline)
    pictures.keep(found, limits, source=known)
    return found


def _decode(
    data: bytes, policy: ImagePolicy, sha256: str, deadline: float | None
) -> tuple[CheckedImage, ...]:
    if size := size_of_intact(data, policy, deadline=deadline):
        whole = Undecoded(data, size, policy)
        return (CheckedImage(whole, sha256, MIME_TYPES["PNG"], 0, 0, data=data),)
    decoded = decode_file(data, policy, deadline=deadline)
    handed_on = data if decoded.as_is else None
    return tuple(
        CheckedImage(pixels, sha256, decoded.mime, 0, 0, frame=number, data=handed_on)
        for number, pixels in enumerate(decoded.frames)
    )


def _adopt(image: Image.Image, policy: ImagePolicy, deadline: float | None) -> CheckedImage:
    """Check an image that was handed over as pixels. Its identity is that of its PPM file."""
    pixels = decode_handed_over(image, policy, deadline=deadline)
    header = f"P6\n{pixels.width} {pixels.height}\n255\n".encode()
    sha256 = hashlib.sha256(header + pixels.tobytes()).hexdigest()
    return CheckedImage(pixels, sha256, MIME_TYPES["PPM"], 0, 0)
