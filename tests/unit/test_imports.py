from __future__ import annotations

import ast
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import safecode_guard
from safecode_guard import judges, testing

HEAVY = ("torch", "transformers", "langchain", "langchain_core", "langgraph", "httpx", "llguidance")
LIGHT_NAMES = (
    *("Policy", "SafeCoDeSettings", "Verdict", "Judgement"),
    *("BaseJudge", "Judge", "JudgeAbilities", "JudgeRequest", "ChatJudge"),
)
ON_LANGCHAIN_ALONE = ("VerdictHandler", "is_action", "route_by_action", "verdict_edge")
"""Public names that may load langchain_core, and nothing else that is heavy."""
LIGHT_FAKES = ("Answer", "Delay", "ScriptedJudge")
JUDGES = sorted(path.stem for path in Path(judges.__file__).parent.glob("[a-z]*.py"))


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


@pytest.mark.parametrize("name", ON_LANGCHAIN_ALONE)
def test_some_names_load_langchain_core_and_nothing_else(name: str) -> None:
    assert loaded_by(f"from safecode_guard import {name}") <= {"langchain_core"}


@pytest.mark.parametrize("name", LIGHT_FAKES)
def test_scripted_judge_loads_nothing_heavy(name: str) -> None:
    assert loaded_by(f"from safecode_guard.testing import {name}") == set()


def test_event_recorder_loads_langchain_core_and_nothing_else() -> None:
    assert loaded_by("from safecode_guard.testing import EventRecorder") <= {"langchain_core"}


@pytest.mark.parametrize("module", JUDGES)
def test_judges_load_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import safecode_guard.judges.{module}") == set()


def test_scripted_judge_judges_without_torch() -> None:
    code = (
        "from safecode_guard import JudgeRequest\n"
        "from safecode_guard.judges.failsafe import run_judge\n"
        "from safecode_guard.testing import ScriptedJudge\n"
        "from safecode_guard.turns import TextPart, Turn, TurnMessage\n"
        "turn = Turn((TurnMessage('user', (TextPart('hi'),)),))\n"
        "assert run_judge(ScriptedJudge(0.9), JudgeRequest.of_turn(turn)).p_unsafe == 0.9"
    )
    assert not loaded_by(code) & {"torch", "transformers"}


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


NAMES = [(package, name) for package in (safecode_guard, testing) for name in package.__all__]


@pytest.mark.parametrize(("package", "name"), NAMES, ids=[name for _, name in NAMES])
def test_every_public_name_can_be_had(package: ModuleType, name: str) -> None:
    assert getattr(package, name) is not None
    assert name in dir(package)


@pytest.mark.parametrize("package", [safecode_guard, testing], ids=lambda p: p.__name__)
def test_type_checkers_see_the_names_that_are_loaded_lazily(package: ModuleType) -> None:
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: str(node.module).removeprefix(f"{package.__name__}.")
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == package._LAZY
    assert set(seen) <= set(package.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'SafeCode'"):
        safecode_guard.SafeCode  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'Scripted'"):
        testing.Scripted  # noqa: B018
    with pytest.raises(ImportError):
        import_module("safecode_guard.SafeCode")
