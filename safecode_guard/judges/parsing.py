"""What a judge wrote, read strictly: one label, or nothing.

Two forms are read: a label alone on its line (`unsafe`, `Decision: unsafe.`), and a JSON object
with a ``label``. Everything else is ``malformed`` and has no label: "not unsafe", "safe or
unsafe", an empty reply, an error message. Only ``unsafe`` may come with reasons in plain text: no
list of words tells a reason from a doubt, so that anything said beside ``safe`` takes it back.
"""

from __future__ import annotations

import json
import re
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
_KEYS: Final = frozenset({"label", "p_unsafe", "categories", "caption", "rationale"})
_FENCE: Final = re.compile(r"\s*```(?:json)?\s*\n(?P<body>.*?)\n?\s*```\s*", re.DOTALL)


@dataclass(frozen=True)
class Reply:
    """What was read of a judge's reply; ``malformed`` goes without a label."""

    label: Label | None
    status: Literal["parsed", "malformed"] = "parsed"
    p_unsafe: float | None = None
    categories: tuple[Category, ...] = ()
    caption: str | None = None
    rationale: str | None = None


MALFORMED: Final = Reply(None, "malformed")


def parse_reply(text: str) -> Reply:
    """Return the label that a reply states; never raises, and never guesses.

    In plain text, ``unsafe`` may stand first or in a marked line (``Decision: unsafe``) among
    reasons; every other label is taken only if nothing else is said. In JSON the ``label``
    decides, unless ``p_unsafe``, a named hazard, or a key that was not asked for stands against
    it; hazard names that are not ours are left out.

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
    # The decision line is the marked one; without a mark it must come first.
    decision = marked or (stated[:1] if matches and matches[0] else [])
    if len(decision) != 1 or len({match["label"].lower() for match in stated}) != 1:
        return MALFORMED
    label = _label(decision[0]["label"])
    if label is None or (label != "unsafe" and len(lines) > 1):
        return MALFORMED
    return Reply(label)


def _parse_json(text: str) -> Reply:
    try:
        data = json.loads(text, object_pairs_hook=unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return MALFORMED
    label = _label(data.get("label"))
    p_unsafe = data.get("p_unsafe")
    named = data.get("categories") or []
    if label is None or not _is_probability(p_unsafe) or not isinstance(named, list):
        return MALFORMED
    categories = tuple(known for known in CATEGORIES if known in named)
    if _contradicts(label, p_unsafe, categories) or (label != "unsafe" and data.keys() - _KEYS):
        return MALFORMED
    return Reply(
        label,
        p_unsafe=None if p_unsafe is None or label == "undecided" else float(p_unsafe),
        categories=categories,
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


def _contradicts(label: Label, p_unsafe: float | None, hazards: tuple[Category, ...]) -> bool:
    p = 0.5 if p_unsafe is None else p_unsafe
    return (label == "safe" and (p > 0.5 or bool(hazards))) or (label == "unsafe" and p < 0.5)


def _sentence(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    # A lone surrogate is legal in JSON and in Python, but not in what is made of it later.
    return value.encode("utf-8", "replace").decode().strip() or None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object in which no key stands twice; the last one would silently win.

    Raises:
        ValueError: If one does.
    """
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key is given twice")
    return data


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
