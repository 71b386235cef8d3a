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
ON_LANGCHAIN_ALONE = ("runnables.", "events")
"""Where names come from that may load langchain_core, and nothing else that is heavy."""
WITH_TORCH = ("model", "server", "endpoint")
"""Where the fakes come from that are models, and need torch."""
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


@pytest.mark.parametrize("module", sorted(set(safecode_guard._LAZY.values())))
def test_public_names_load_neither_torch_nor_transformers(module: str) -> None:
    names = [name for name, source in safecode_guard._LAZY.items() if source == module]
    allowed = {"langchain_core"} if module.startswith(ON_LANGCHAIN_ALONE) else set()
    assert loaded_by(f"from safecode_guard import {', '.join(names)}") <= allowed


@pytest.mark.parametrize("module", sorted(set(testing._LAZY.values()) - {*WITH_TORCH}))
def test_fakes_that_are_no_models_load_neither(module: str) -> None:
    names = [name for name, source in testing._LAZY.items() if source == module]
    allowed = {"langchain_core"} if module in ON_LANGCHAIN_ALONE else set()
    assert loaded_by(f"from safecode_guard.testing import {', '.join(names)}") <= allowed


@pytest.mark.parametrize(
    "use",
    [
        "SafeCoDeCheck(judge=judge).check('Hello')",
        "SafeCoDeCheck(judge=judge).invoke(picture)",
        "SafeCoDeGuard(model=model, judge=judge, policy={'mode': 'judge_only'}).invoke(picture)",
    ],
)
def test_judging_around_a_model_somewhere_else_needs_neither(use: str) -> None:
    code = (
        "from langchain_core.language_models import FakeListChatModel\n"
        "from langchain_core.messages import HumanMessage\n"
        "from PIL import Image\n"
        "from safecode_guard import SafeCoDeCheck, SafeCoDeGuard\n"
        "from safecode_guard.testing import ScriptedJudge\n"
        "picture = [HumanMessage([{'type': 'image', 'image': Image.new('RGB', (4, 4))}])]\n"
        "model, judge = FakeListChatModel(responses=['Hello.']), ScriptedJudge(0.9)\n"
        f"{use}"
    )
    assert not loaded_by(code) & {"torch", "transformers"}


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
