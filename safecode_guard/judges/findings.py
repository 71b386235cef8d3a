"""What a judge found, believed only if it makes sense.

A `Judgement` can be made in ways that check nothing (``model_copy``, ``model_construct``), and a
judge is foreign code. A number that is none, a label that its own probability contradicts, a label
of a reply that was not read: each is a failed check, never a verdict.
"""

from __future__ import annotations

from typing import Any, Final

from safecode_guard.errors import JudgeError
from safecode_guard.judges.failures import UNREADABLE
from safecode_guard.taxonomy import LABELS, Label
from safecode_guard.verdict import Judgement

_REPORTED: Final = "the judge reported a failed check"


def checked_finding(finding: Any) -> Judgement:
    """Return what a judge gave as a judgement whose every field holds.

    Numbers of other kinds (numpy's, tensors without dimensions) become Python's. A failed check
    loses whatever label or number came with it; a reply marked ``malformed`` is a failed check.

    Raises:
        JudgeError: If it is no judgement, says nothing, or contradicts itself.
    """
    if not isinstance(finding, Judgement):
        raise JudgeError(f"The judge returned {type(finding).__name__!r}, not a Judgement.")
    fields = dict(vars(finding))
    failed, status = fields.get("failed"), fields.get("parse_status")
    if failed is not None or status == "malformed":
        return _judgement(fields | _nothing_found(failed, status))
    fields |= {name: _share(fields.get(name), name) for name in ("p_unsafe", "label_mass")}
    judgement = _judgement(fields | {"label": _label(fields.get("label"))})
    if flaw := _flaw(judgement):
        raise JudgeError(f"The judge {flaw}.")
    return judgement


def _nothing_found(failed: Any, status: Any) -> dict[str, Any]:
    unread = status == "malformed"
    reported = UNREADABLE if unread else _REPORTED
    return {
        "p_unsafe": None,
        "label": None,
        "label_mass": None,
        "categories": (),
        "failed": failed if isinstance(failed, str) and failed else reported,
        "parse_status": "malformed" if unread else "not_run",
    }


def _judgement(fields: dict[str, Any]) -> Judgement:
    try:
        judgement = Judgement.model_validate(fields)
        judgement.model_dump_json()  # text that cannot be written would break the verdict later
    except ValueError as error:
        raise JudgeError("The judge returned a Judgement with fields that are none.") from error
    return judgement


def _share(value: Any, name: str) -> float | None:
    """Return a probability as a Python number; text and truth values are none."""
    if value is None:
        return None
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise JudgeError(f"The judge's {name} is of type {type(value).__name__!r}, no number.")
    if not 0 <= value <= 1:  # nor is NaN
        raise JudgeError(f"The judge's {name} is no number within [0, 1].")
    return float(value)


def _label(value: Any) -> Label | None:
    if value is None:
        return None
    label = next((known for known in LABELS if isinstance(value, str) and known == value), None)
    if label is None:
        raise JudgeError("The judge gave a label that is none.", hint=f"Labels are {LABELS}.")
    return label


def _flaw(judgement: Judgement) -> str | None:
    """Return what is wrong with a judgement whose fields hold one by one."""
    label, p, status = judgement.label, judgement.p_unsafe, judgement.parse_status
    if label is None and p is None:
        return "gave neither a label nor a probability"
    if p is not None and ((label == "safe" and p > 0.5) or (label == "unsafe" and p < 0.5)):
        return f"says {label!r} with a p_unsafe of {p:g}"
    if status == "not_run":
        return "gave a finding without having been asked"
    if status == "low_mass" and label != "undecided":
        return "was not about to answer, and is not undecided"
    return None
