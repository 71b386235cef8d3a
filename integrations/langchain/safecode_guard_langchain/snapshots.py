"""Snapshots of messages: whether one is as it was, to the last letter of what is nested in it.

Middlewares change messages in place, however deep, and LangChain shows callbacks copies. A snapshot
has containers of its own and the very same texts in them: as long as nothing has changed, comparing
goes by identity, and a picture costs no more than a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from langchain_core.messages import BaseMessage

_DEPTH: Final = 32
_CONSTANT: Final = frozenset({str, bytes, int, float, bool, type(None)})


class Kept(NamedTuple):
    """A message as it was at one time."""

    type: str
    content: Any


def frozen(value: Any, depth: int = 0) -> Any:
    """Return a value in containers that nobody else can change.

    What is not constant, such as pixels, becomes an object that equals nothing: it has to be
    looked at each time.
    """
    if type(value) in _CONSTANT:
        return value
    if depth > _DEPTH:
        return object()
    if isinstance(value, Mapping):
        return {key: frozen(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [frozen(item, depth + 1) for item in value]
    return object()


def unchanged(value: Any, known: Any) -> bool:
    """Return whether a value is as its snapshot says; what is no constant never is.

    Every message of a conversation is compared at every step, so the common case is left to the
    interpreter: containers whose constants are the very same objects compare at once.
    """
    return _equal(value, known) or _tuples_and_all(value, known)


def alike(given: BaseMessage, known: Kept) -> bool:
    """Return whether a message shows what another did, perhaps in the form that callbacks get."""
    if given.type != known.type:
        return False
    shown, before = given.content, known.content
    if not (isinstance(shown, list) and isinstance(before, list)):
        return unchanged(shown, before)
    if len(shown) != len(before):
        return False
    return _equal(shown, before) or all(map(_same_block, shown, before))


def _equal(value: Any, known: Any) -> bool:
    try:
        return bool(value == known)
    except Exception:  # what compares in a way of its own, such as an array, is no constant
        return False


def _tuples_and_all(value: Any, known: Any) -> bool:
    """Compare piece by piece: a snapshot has lists where a value may have tuples."""
    if isinstance(value, Mapping):
        return (
            isinstance(known, dict)
            and len(value) == len(known)
            and all(key in known and unchanged(item, known[key]) for key, item in value.items())
        )
    if isinstance(value, list | tuple):
        return (
            isinstance(known, list)
            and len(value) == len(known)
            and all(map(unchanged, value, known))
        )
    return False


def _same_block(given: Any, known: Any) -> bool:
    if not (isinstance(given, dict) and isinstance(known, dict)):
        return unchanged(given, known)
    if known.get("type") == "image" and given.get("type") == "image_url":
        return _is_image_of(given, known)
    if unchanged(given, known):
        return True
    if known.get("type") == "file" and "base64" in known:
        rest = {key: value for key, value in known.items() if key != "base64"}
        return _equal(given, {**rest, "data": known["base64"], "source_type": "base64"})
    if len(known) != 1 or "type" in known:
        return False
    return _equal(given, {"type": next(iter(known)), **known})


def _is_image_of(given: dict[str, Any], known: dict[str, Any]) -> bool:
    """Return whether a block is an image in OpenAI's form; its text is compared, not copied."""
    address = given.get("image_url")
    if len(given) != 2 or not isinstance(address, dict) or len(address) != 1:
        return False
    url = address.get("url")
    if not isinstance(url, str):
        return False
    if "url" in known:
        return bool(url == known["url"])
    data = known["data"] if "data" in known else known.get("base64")
    head = f"data:{known.get('mime_type')};base64,"
    if not isinstance(data, str) or len(url) != len(head) + len(data):
        return False
    return url.startswith(head) and url.endswith(data)
