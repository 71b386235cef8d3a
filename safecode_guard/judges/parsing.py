"""What a judge wrote, read strictly: one label, or nothing.

Two forms are read: a label alone on its line (`unsafe`, `Decision: unsafe.`), and a JSON object
with a ``label``. Everything else is ``undecided`` with the status ``malformed``: "not unsafe",
"safe or unsafe", an empty reply, an error message.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Final, Literal

from safecode_guard.taxonomy import CATEGORIES, LABELS, Category, Label

_MAX_CHARS: Final = 20_000
_WRAP: Final = r"[\s\"'`*_]*"
_LABEL_LINE: Final = re.compile(
    rf"{_WRAP}(?P<marker>(?:decision|verdict|label|answer){_WRAP}[:=])?{_WRAP}"
    rf"(?P<label>safe|unsafe|undecided){_WRAP}[.!]?{_WRAP}",
    re.IGNORECASE,
)
_DOUBT: Final = re.compile(r"unsafe|undecided|\bnot\b|n['’]t\b", re.IGNORECASE)
_FENCE: Final = re.compile(r"\s*```(?:json)?\s*\n(?P<body>.*?)\n?\s*```\s*", re.DOTALL)


@dataclass(frozen=True)
class Reply:
    """What was read of a judge's reply; ``malformed`` goes with the label ``undecided``."""

    label: Label
    status: Literal["parsed", "malformed"] = "parsed"
    p_unsafe: float | None = None
    categories: tuple[Category, ...] = ()
    caption: str | None = None
    rationale: str | None = None


MALFORMED: Final = Reply("undecided", "malformed")


def parse_reply(text: str) -> Reply:
    """Return the label that a reply states; never raises, and never guesses.

    In plain text, ``safe`` is taken only if the rest of the text has no word of doubt. In JSON
    the ``label`` decides, unless ``p_unsafe`` contradicts it; hazard names that are not ours are
    left out.

    Example:
        >>> parse_reply("unsafe.").label, parse_reply("not unsafe").status
        ('unsafe', 'malformed')
    """
    if len(text) > _MAX_CHARS:
        return MALFORMED
    fenced = _FENCE.fullmatch(text)
    body = (fenced["body"] if fenced else text).strip()
    return _parse_json(body) if body.startswith("{") else _parse_line(body)


def _parse_line(text: str) -> Reply:
    lines = [line for line in text.splitlines() if line.strip()]
    matches = [_LABEL_LINE.fullmatch(line) for line in lines]
    marked = [match for match in matches if match and match["marker"]]
    stated = [match for match in matches if match]
    # The decision line is the marked one; without a mark it must come first and stand alone.
    decision = marked if marked else stated[:1] if matches and matches[0] else []
    if len(decision) != 1 or len({match["label"].lower() for match in stated}) != 1:
        return MALFORMED
    label = _label(decision[0]["label"])
    if label == "safe" and _DOUBT.search(unicodedata.normalize("NFKC", text)):
        return MALFORMED
    return MALFORMED if label is None else Reply(label)


def _parse_json(text: str) -> Reply:
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return MALFORMED
    label = _label(data.get("label"))
    p_unsafe = data.get("p_unsafe")
    categories = data.get("categories") or []
    if label is None or not _is_probability(p_unsafe) or not isinstance(categories, list):
        return MALFORMED
    if p_unsafe is not None and _contradicts(label, p_unsafe):
        return MALFORMED
    return Reply(
        label,
        p_unsafe=None if p_unsafe is None or label == "undecided" else float(p_unsafe),
        categories=tuple(known for known in CATEGORIES if known in categories),
        caption=_sentence(data.get("caption")),
        rationale=_sentence(data.get("rationale")),
    )


def _label(value: Any) -> Label | None:
    word = value.strip().lower() if isinstance(value, str) else None
    return next((label for label in LABELS if label == word), None)


def _is_probability(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _contradicts(label: Label, p_unsafe: float) -> bool:
    return (label == "safe" and p_unsafe > 0.5) or (label == "unsafe" and p_unsafe < 0.5)


def _sentence(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    # A lone surrogate is legal in JSON and in Python, but not in what is made of it later.
    return value.encode("utf-8", "replace").decode().strip() or None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key is given twice")
    return data


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
