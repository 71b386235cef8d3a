"""A store of decoded pictures, so that each is decoded once in a conversation and not each time.

Agents send the whole history with every step. A picture is found by the sha256 of its encoded
bytes, and before that by the text or bytes object it came in, whose hash Python keeps: the second
reading of a message costs the same for a thumbnail and for a photograph.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.decoding import pixel_limit
from safecode_guard.turns.found import Encoded, File, Found, Link

if TYPE_CHECKING:
    from safecode_guard.turns.images import CheckedImage

_BYTES_PER_PIXEL: Final = 4
"""Pillow keeps RGB in four bytes."""

_LONG_TEXT: Final = 1000
"""Characters of a text from which on looking for images in it takes longer than looking it up."""


class Limits(NamedTuple):
    """The part of a policy that a kept picture has passed; another policy decodes afresh."""

    max_bytes: int
    max_pixels: int
    formats: tuple[str, ...]
    animated: str
    max_frames: int

    @classmethod
    def of(cls, policy: ImagePolicy) -> Self:
        """Return a policy's limits."""
        return cls(
            policy.max_bytes,
            pixel_limit(policy),
            policy.formats,
            policy.animated,
            policy.max_frames,
        )


@dataclass(frozen=True)
class Statistics:
    """What a store holds, and how it has served."""

    hits: int
    misses: int
    bytes: int


@dataclass
class _Entry:
    value: Any
    size: int
    aliases: list[Hashable] = field(default_factory=list)


class PictureStore:
    """Keeps decoded pictures for all who read messages; thread-safe, the longest unused go first.

    Example:
        >>> from langchain_core.messages import HumanMessage
        >>> from safecode_guard.turns.reading import read_turn
        >>> store = PictureStore(256_000_000)
        >>> turn = read_turn([HumanMessage("Hello")], pictures=store)
        >>> store.statistics.bytes
        0
    """

    def __init__(self, max_bytes: int) -> None:
        """Make an empty store.

        Args:
            max_bytes: Of pixels, encoded bytes and sources together; 0 keeps nothing.
        """
        self.max_bytes = max_bytes
        self._lock = Lock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._keys: dict[Hashable, Hashable] = {}
        self._hits = self._misses = self._bytes = 0

    @property
    def statistics(self) -> Statistics:
        """What the store holds now, and how it has served so far."""
        with self._lock:
            return Statistics(self._hits, self._misses, self._bytes)

    def by_source(self, source: File, limits: Limits) -> tuple[CheckedImage, ...] | None:
        """Return the pictures that came from a source, which must hold its bytes itself."""
        with self._lock:
            found: tuple[CheckedImage, ...] | None = self._get(self._keys.get((source, limits)))
            self._hits += found is not None
            return found

    def by_sha256(self, sha256: str, limits: Limits) -> tuple[CheckedImage, ...] | None:
        """Return the pictures with this hash of their encoded bytes."""
        with self._lock:
            found: tuple[CheckedImage, ...] | None = self._get((sha256, limits))
            self._hits += found is not None
            self._misses += found is None
            return found

    def keep(
        self, images: tuple[CheckedImage, ...], limits: Limits, *, source: File | None = None
    ) -> None:
        """Keep the pictures of one file, under their hash and the source they came from."""
        key = (images[0].sha256, limits)
        with self._lock:
            if self._put(key, images, sum(map(_size, images))) and source is not None:
                self._link((source, limits), key, _length(source))
            self._shrink()

    def pieces(self, text: str, split: Callable[[str], tuple[Found, ...]]) -> tuple[Found, ...]:
        """Return what a text splits into, remembered if it is long."""
        key = ("text", text)
        with self._lock:
            found: tuple[Found, ...] | None = self._get(key) if len(text) >= _LONG_TEXT else None
        if found is None:
            found = split(text)
            if len(text) >= _LONG_TEXT:
                with self._lock:
                    self._put(key, found, 2 * len(text))
                    self._shrink()
        return found

    def _get(self, key: Hashable) -> Any:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.value

    def _put(self, key: Hashable, value: Any, size: int) -> bool:
        if key not in self._entries and size <= self.max_bytes:
            self._entries[key] = _Entry(value, size)
            self._bytes += size
        return key in self._entries

    def _link(self, alias: Hashable, key: Hashable, size: int) -> None:
        if alias not in self._keys:
            entry = self._entries[key]
            self._keys[alias] = key
            entry.aliases.append(alias)
            entry.size += size
            self._bytes += size

    def _shrink(self) -> None:
        while self._bytes > self.max_bytes:
            _, entry = self._entries.popitem(last=False)
            self._bytes -= entry.size
            for alias in entry.aliases:
                del self._keys[alias]


def _size(image: CheckedImage) -> int:
    """Count a picture's pixels and encoded bytes, those that may yet be made of it, too."""
    width, height = image.size
    pixels = width * height * _BYTES_PER_PIXEL
    return pixels + (pixels if image.data is None else len(image.data))


def _length(source: File) -> int:
    if isinstance(source, Encoded):
        return len(source.text)
    return len(source.url) if isinstance(source, Link) else len(source)
