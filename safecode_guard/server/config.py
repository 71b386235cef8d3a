"""What a server admits: who, how much, and how many at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from safecode_guard.errors import PolicyError

SHORTEST_KEY = 16
"""Characters of a key: a shorter one could be guessed."""


class ServerConfig(BaseModel):
    """What a server admits."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    keys: Mapping[str, SecretStr] = Field(default_factory=dict, repr=False)
    """Keys of callers by the name under which they stand in logs; none: everyone is let in."""
    max_request_bytes: int = Field(default=32_000_000, gt=0)
    """Of one request, pictures included; more is refused unread."""
    per_key: int = Field(default=16, gt=0)
    """Requests of one key that are under way at a time; of everyone, where there are no keys."""
    patience_s: float = Field(default=60, gt=0)
    """Seconds that a client may take to send its request, or to take one part of a stream; then
    its turn ends, and its place is given to others."""
    narrowed: int = Field(default=16, gt=0)
    """Policies narrowed by requests that are kept ready."""


def read_keys(path: Path) -> dict[str, SecretStr]:
    """Return the keys of a file: a line ``name: key`` each; empty lines and ``#`` are let be.

    Raises:
        PolicyError: If it cannot be read, holds no key, a key twice or one that can be guessed.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is no text"
        raise PolicyError(f"Cannot read the keys in {str(path)!r}: {why}.") from error
    keys: dict[str, SecretStr] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, key = (part.strip() for part in line.partition(":"))
        if not (colon and name and name not in keys):
            raise _wrong(path, number, "is no new name, a colon and a key")
        if len(key) < SHORTEST_KEY or not key.isascii() or any(map(str.isspace, key)):
            raise _wrong(path, number, f"has no key of {SHORTEST_KEY} letters or more")
        if any(key == other.get_secret_value() for other in keys.values()):
            raise _wrong(path, number, "has the key of another name")
        keys[name] = SecretStr(key)
    if not keys:
        raise PolicyError(f"There is no key in {str(path)!r}.", hint="Write lines `name: key`.")
    return keys


def _wrong(path: Path, number: int, what: str) -> PolicyError:
    return PolicyError(f"Line {number} of {str(path)!r} {what}.", hint="Write lines `name: key`.")
