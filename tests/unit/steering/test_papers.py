"""The index from equation to function names things that exist, and the twins that hold them."""

from __future__ import annotations

import json
import pkgutil
import re
from pathlib import Path

import pytest

from safecode_guard.models.families import GENERIC
from safecode_guard.policy import DecodingPolicy
from safecode_guard.steering.factory import make_strategy
from tests.reference import ecso, judging, ras
from tests.reference import steering as naive
from tests.unit.steering.contexts import context
from tests.unit.steering.vocabularies import byte_level

ROOT = Path(__file__).parents[3]
INDEX = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "concepts" / "steering.md").read_text(encoding="utf-8")
ROWS = [line.split("|") for line in INDEX.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(safecode_guard\.[\w.]+)`", INDEX))))
def test_every_function_named_exists(name):
    assert pkgutil.resolve_name(name)


def test_every_twin_named_exists():
    twins = {name for row in ROWS for name in re.findall(r"`(\w+)`", row[3])}
    assert len(twins) >= 7
    assert all(
        any(hasattr(module, twin) for module in (naive, judging, ras, ecso)) for twin in twins
    )


def test_the_pages_record_is_what_is_written():
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    given = context(byte_level(), "safe", certainty=0.8, seed=0)
    assert json.loads(shown) == make_strategy(DecodingPolicy(), GENERIC).record(given)
