"""Keeps pictures out of the options of a call, which reach a model as they are.

Providers take content there too: variables of a stored prompt, whole messages in an extra body. No
judge is shown any of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from safecode_guard.errors import UnsupportedMedia
from safecode_guard.turns.media import IN_MEMORY
from safecode_guard.turns.plain import MAX_LEVELS, MEDIA_TYPES, is_media_text

_MEDIA_KEYS: Final = frozenset({"image_url", "images", "inline_data", "inlineData"})
"""Keys that hold a picture wherever they stand; schemas of tools may have properties so named."""
_SCHEMAS: Final = frozenset({"tools", "functions", "response_format", "json_schema", "schema"})


def require_no_media(options: Mapping[str, Any]) -> None:
    """Check that the options of a call hold no picture.

    Raises:
        UnsupportedMedia: If one does, or is nested beyond reason.
    """
    for name, value in options.items():
        if _holds_media(value, name, schema=name in _SCHEMAS, depth=0):
            raise UnsupportedMedia(
                f"The option {name[:40]!r} of the call holds media, which no judge would see.",
                hint="Send images as blocks of a message's content.",
            )


def _holds_media(value: Any, key: Any, *, schema: bool, depth: int) -> bool:
    if depth > MAX_LEVELS or isinstance(value, IN_MEMORY):
        return True
    if isinstance(value, str):
        return is_media_text(value) or (key in _MEDIA_KEYS and not schema and bool(value))
    if isinstance(value, list | tuple):
        return any(_holds_media(item, key, schema=schema, depth=depth + 1) for item in value)
    if not isinstance(value, Mapping):
        return False
    kind = value.get("type")
    if not schema and isinstance(kind, str) and kind in MEDIA_TYPES:
        return True
    return any(
        _holds_media(item, name, schema=schema or name in _SCHEMAS, depth=depth + 1)
        for name, item in value.items()
    )
