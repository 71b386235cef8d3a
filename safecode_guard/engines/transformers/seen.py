"""Pictures go through a processor once: what was made of them stands in for the second time."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class SeenPictures:
    """What an image processor made of lists of pictures, for as long as a session lasts.

    Pictures are told apart by being the same objects, which are held here.
    """

    def __init__(self) -> None:
        self._made: dict[Any, tuple[Any, Any]] = {}

    def of(self, processor: Any, images: Any, options: dict[str, Any]) -> Any:
        """Return a processor's output for some pictures, whose dictionary is the caller's own."""
        key = _identity(images), repr(sorted(options.items(), key=str))
        if key not in self._made:
            self._made[key] = images, processor(images, **options)
        made = copy.copy(self._made[key][1])
        made.data = dict(made.data)  # processors take out what is not for the model
        return made


@contextmanager
def seeing(processor: Any, seen: SeenPictures | None) -> Iterator[None]:
    """Let a processor look up pictures that it has seen; one caller at a time."""
    if seen is None:
        yield
        return
    inner = processor.image_processor
    processor.image_processor = _Looking(inner, seen)
    try:
        yield
    finally:
        processor.image_processor = inner


class _Looking:
    """An image processor that looks up what it has made before."""

    def __init__(self, inner: Any, seen: SeenPictures) -> None:
        self._inner, self._seen = inner, seen

    def __call__(self, images: Any, **options: Any) -> Any:
        return self._seen.of(self._inner, images, options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _identity(images: Any) -> Any:
    return tuple(map(_identity, images)) if isinstance(images, list | tuple) else id(images)
