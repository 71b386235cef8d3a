from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.errors import JudgeError
from safecode_guard.judges.findings import checked_finding
from safecode_guard.taxonomy import LABELS
from safecode_guard.verdict import Judgement


def finding(**update: Any) -> Judgement:
    """Return a judgement as a careless judge can make one: nothing is checked."""
    whole = Judgement(judge_id="j", prompt_version="1", p_unsafe=0.2, parse_status="logits")
    return whole.model_copy(update=update)


@pytest.mark.parametrize(
    "number",
    [-0.3, 1.5, math.nan, math.inf, -math.inf, 10**400, True, False, "0.1", b"0.1", Decimal("0.1"),
     0.1j, [0.1], np.float32(1.5), np.float64(math.nan), np.bool_(True), np.array([0.1]),
     torch.tensor(-0.3), torch.tensor(math.nan), torch.tensor(True), torch.tensor([0.1]), object()],
)  # fmt: skip
@pytest.mark.parametrize("name", ["p_unsafe", "label_mass"])
def test_what_is_no_number_within_0_and_1_is_no_finding(name: str, number: Any) -> None:
    with pytest.raises(JudgeError, match=name):
        checked_finding(finding(**{name: number}))


@pytest.mark.parametrize(
    "number", [0.25, np.float32(0.25), np.float64(0.25), np.array(0.25), torch.tensor(0.25)]
)
def test_sound_numbers_of_other_kinds_become_pythons(number: Any) -> None:
    found = checked_finding(finding(p_unsafe=number, label_mass=number))
    assert (found.p_unsafe, found.label_mass) == (0.25, 0.25)
    assert type(found.p_unsafe) is type(found.label_mass) is float
    assert Judgement.model_validate_json(found.model_dump_json()) == found


def test_whole_numbers_are_numbers() -> None:
    assert checked_finding(finding(p_unsafe=1)).p_unsafe == 1.0
    assert checked_finding(finding(p_unsafe=np.int64(0))).p_unsafe == 0.0


@pytest.mark.parametrize(
    "update",
    [
        {"label": "safe", "p_unsafe": 0.9},
        {"label": "safe", "p_unsafe": 0.51},
        {"label": "unsafe", "p_unsafe": 0.49},
        {"label": None, "p_unsafe": None},
        {"label": "harmless"},
        {"label": "SAFE"},
        {"label": ""},
        {"label": 0},
        {"label": ["safe"]},
        {"label": "safe", "parse_status": "not_run"},
        {"label": "safe", "parse_status": "low_mass"},
        {"label": None, "parse_status": "low_mass"},
        {"parse_status": "guessed"},
        {"categories": ("invented",)},
        {"categories": 3},
        {"caption": 3},
        {"caption": "a\ud800"},
        {"judge_id": None},
        {"members": "one"},
    ],
)
def test_contradictions_and_broken_fields_are_no_finding(update: dict[str, Any]) -> None:
    with pytest.raises(JudgeError):
        checked_finding(finding(**update))


@pytest.mark.parametrize(
    "update",
    [
        {"label": "safe", "p_unsafe": 0.5},
        {"label": "unsafe", "p_unsafe": 0.5},
        {"label": "undecided", "p_unsafe": 0.99},
        {"label": "undecided", "p_unsafe": 0.01, "parse_status": "low_mass"},
        {"label": "unsafe", "p_unsafe": None, "categories": ["situational"]},
    ],
)
def test_findings_that_hold_are_kept(update: dict[str, Any]) -> None:
    found = checked_finding(finding(**update))
    assert (found.label, found.p_unsafe) == (update["label"], update["p_unsafe"])
    assert found.failed is None


@pytest.mark.parametrize("label", [None, "undecided", "safe", "unsafe"])
def test_reply_that_was_not_read_is_a_failed_check(label: str | None) -> None:
    found = checked_finding(finding(label=label, parse_status="malformed"))
    assert (found.label, found.p_unsafe, found.parse_status) == (None, None, "malformed")
    assert found.failed == "the judge's reply could not be read"


@pytest.mark.parametrize(
    ("failed", "reason"),
    [
        ("offline", "offline"),
        ("", "the judge reported a failed check"),
        (ValueError("secret"), "the judge reported a failed check"),
    ],
)
def test_failed_check_carries_nothing_else(failed: Any, reason: str) -> None:
    found = checked_finding(finding(failed=failed, label="safe", p_unsafe=math.nan, label_mass=1))
    assert found.failed == reason
    assert (found.label, found.p_unsafe, found.label_mass) == (None, None, None)
    assert (found.categories, found.parse_status) == ((), "not_run")


@pytest.mark.parametrize("value", [None, "safe", 0.1, {"p_unsafe": 0.1}, Judgement])
def test_what_is_no_judgement_is_named_by_its_type(value: object) -> None:
    with pytest.raises(JudgeError, match=type(value).__name__):
        checked_finding(value)


def test_judgement_made_without_its_fields_is_no_finding() -> None:
    with pytest.raises(JudgeError):
        checked_finding(Judgement.model_construct(p_unsafe=0.1))


ANYTHING = st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary()


@given(
    p=ANYTHING | st.floats(0, 1),
    label=ANYTHING | st.sampled_from(LABELS),
    mass=st.none() | st.floats(),
    status=ANYTHING | st.sampled_from(["logits", "parsed", "low_mass", "malformed", "not_run"]),
)
def test_whatever_is_believed_makes_sense(p: Any, label: Any, mass: Any, status: Any) -> None:
    update = {"p_unsafe": p, "label": label, "label_mass": mass, "parse_status": status}
    try:
        found = checked_finding(finding(**update))
    except JudgeError:
        return
    if found.failed is not None:
        assert (found.label, found.p_unsafe) == (None, None)
        return
    bounds = {"safe": (0, 0.5), "unsafe": (0.5, 1), "undecided": (0, 1), None: (0, 1)}
    low, high = bounds[found.label]
    assert found.label if found.p_unsafe is None else low <= found.p_unsafe <= high
    assert found.parse_status not in ("malformed", "not_run")
