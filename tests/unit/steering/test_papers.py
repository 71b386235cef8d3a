"""The index from equation to function names things that exist, and the twins that hold them."""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path

import pytest

from tests.reference import steering as naive

ROOT = Path(__file__).parents[3]
INDEX = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "concepts" / "steering.md").read_text(encoding="utf-8")
ROWS = [line.split("|") for line in INDEX.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`(safecode_guard\.steering[\w.]+)`", INDEX)))
)
def test_every_function_named_exists(name):
    package, module, *path = name.removeprefix("safecode_guard.").split(".")
    found = importlib.import_module(f"safecode_guard.{package}.{module}")
    assert functools.reduce(getattr, path, found)


def test_every_twin_named_exists():
    twins = {name for row in ROWS for name in re.findall(r"`(\w+)`", row[3])}
    assert len(twins) >= 7
    assert all(hasattr(naive, twin) for twin in twins)


def test_the_pages_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "steering.md", "exec"), {})
