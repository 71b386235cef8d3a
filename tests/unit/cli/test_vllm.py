from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safecode_guard.cli.app import app
from safecode_guard.engines.vllm.flags import TESTED, Installed, flags, installed
from safecode_guard.errors import PolicyError

STAND_IN = """#!{python}
import sys
from importlib import metadata, util

real = metadata.version
metadata.version = lambda name: {vllm!r} if name == "vllm" else real(name)
util.find_spec = lambda name: {plugin!r}
exec(sys.argv[2])
"""


@pytest.fixture
def interpreter(tmp_path: Path):
    """Give the maker of an interpreter whose environment has some vLLM."""

    def make(vllm: str, *, plugin: bool = True) -> Path:
        path = tmp_path / "python"
        text = STAND_IN.format(python=sys.executable, vllm=vllm, plugin=True if plugin else None)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    return make


def run(*arguments: str | Path):
    return CliRunner().invoke(app, ["vllm", "flags", *map(str, arguments)])


def test_the_line_is_printed_for_a_version_that_was_tried(interpreter):
    done = run("my/model", "--python", interpreter("0.32.0+cpu"))
    assert done.exit_code == 0, done.stderr
    assert done.stdout.split() == [
        "VLLM_USE_V2_MODEL_RUNNER=0",
        *("vllm", "serve", "my/model"),
        *flags(),
    ]


def test_synchronous_servers_have_another_scheduler(interpreter):
    shown = json.loads(run("--sync", "--json", "--python", interpreter("0.32.0")).stdout)
    assert shown["flags"][-2:] == [
        "safecode_guard_vllm.scheduler.PairScheduler",
        "--no-async-scheduling",
    ]


@pytest.mark.parametrize("version", ["0.31.0", "0.32.1", "0.33.0", "1.0", "0.32.0rc1"])
def test_other_versions_are_refused(interpreter, version):
    done = run("--python", interpreter(version))
    assert done.exit_code == 1
    assert version in done.stderr
    assert done.stdout == ""


def test_without_vllm_or_the_plugin_it_is_refused(interpreter):
    done = run("--python", interpreter("0.32.0", plugin=False))
    assert done.exit_code == 1
    assert "plug-in" in done.stderr
    with pytest.raises(PolicyError, match="not installed"):
        Installed(None, True).require()
    assert installed(Path(sys.executable)) == installed()


def test_an_interpreter_that_does_not_run_is_an_error(tmp_path):
    done = run("--python", tmp_path / "nowhere")
    assert done.exit_code == 1
    assert "no interpreter" in done.stderr


def test_what_the_pages_print_is_what_the_command_prints():
    root = Path(__file__).parents[3]
    for page in ("docs/how-to/vllm.md", "integrations/vllm/README.md"):
        text = (root / page).read_text(encoding="utf-8")
        for flag in flags():
            assert flag in text, (page, flag)
        assert all(f"vllm=={version.rpartition('.')[0]}" in text for version in TESTED)
