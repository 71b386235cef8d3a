from __future__ import annotations

import ast
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

import safecode_guard

HEAVY = ("torch", "transformers", "langchain", "langchain_core", "langgraph", "httpx", "llguidance")
LIGHT_NAMES = ("Policy", "SafeCoDeSettings", "Verdict", "Judgement")


def loaded_by(code: str) -> set[str]:
    """Return which heavy packages a fresh interpreter holds after running some code."""
    report = f"import sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import safecode_guard") == set()


@pytest.mark.parametrize("name", LIGHT_NAMES)
def test_light_names_load_nothing_heavy(name: str) -> None:
    assert loaded_by(f"from safecode_guard import {name}") == set()


def test_the_command_line_starts_without_anything_heavy() -> None:
    assert loaded_by("import safecode_guard.cli.app") == set()


def test_the_check_sees_a_heavy_package() -> None:
    assert "httpx" in loaded_by("import httpx")


def test_importing_the_package_is_quick() -> None:
    code = (
        "import time; start = time.perf_counter(); import safecode_guard;"
        "print(time.perf_counter() - start)"
    )
    seconds = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        seconds.append(float(done.stdout))
        if min(seconds) <= 0.7:
            break
        time.sleep(1)  # another process may have the machine
    assert min(seconds) <= 0.7


@pytest.mark.parametrize("name", safecode_guard.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(safecode_guard, name) is not None
    assert name in dir(safecode_guard)


def test_type_checkers_see_the_names_that_are_loaded_lazily() -> None:
    tree = ast.parse(Path(safecode_guard.__file__).read_text(encoding="utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: str(node.module).removeprefix("safecode_guard.")
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == safecode_guard._LAZY
    assert set(seen) <= set(safecode_guard.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'SafeCode'"):
        safecode_guard.SafeCode  # noqa: B018
    with pytest.raises(ImportError):
        import_module("safecode_guard.SafeCode")
