from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

import safecode_guard
from safecode_guard.cli import doctor, screen
from safecode_guard.cli.app import COMMANDS, app, command_help
from safecode_guard.errors import GuardError
from safecode_guard.models.families import FAMILIES, Family
from safecode_guard.policy import Policy
from safecode_guard.settings import SafeCoDeSettings
from safecode_guard.verdict import PolicyRef, SkippedMedia, SubjectImage, ToolCallRef, Verdict


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("SAFECODE_"):
            monkeypatch.delenv(name)


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=env)


def only_json(done: Any) -> Any:
    """Return the one JSON object on stdout; anything else there is an error."""
    return json.loads(done.stdout)


# -- the application ----------------------------------------------------------------------------


def test_the_version_is_the_package_version() -> None:
    done = run("--version")
    assert done.exit_code == 0
    assert done.stdout == f"safecode-guard {safecode_guard.__version__}\n"


def test_the_module_can_be_run() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "safecode_guard", "--version"], capture_output=True, text=True
    )
    assert done.stdout == f"safecode-guard {safecode_guard.__version__}\n"


def test_every_command_has_a_help_that_fits_80_columns() -> None:
    texts = dict(command_help())
    assert len(texts) == len(COMMANDS)
    for name, text in texts.items():
        assert "usage: safecode-guard" in text.lower(), name
        assert max(map(len, text.splitlines())) <= 80, name
    assert "4" in texts["safecode-guard"]  # exit codes are part of it


@pytest.mark.parametrize(
    "arguments",
    [["fly"], ["ask"], ["ask", "absent.png", "Why?"], ["check", "."], ["policy", "show", "--x"]],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


# -- errors -------------------------------------------------------------------------------------


def test_an_error_is_a_short_message_with_its_hint(tmp_path: Path) -> None:
    done = run("policy", "validate", tmp_path / "absent.toml")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "Error: Cannot read the policy file" in done.stderr
    assert "Hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    command = [
        "-m",
        "safecode_guard",
        "--debug",
        "policy",
        "validate",
        str(tmp_path / "absent.toml"),
    ]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "PolicyError" in done.stderr


def test_what_others_wrote_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_error(GuardError("\x1b[2Jgone [bold]x[/bold]", hint="\x07"))
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[bold]x[/bold]" in shown


# -- policy -------------------------------------------------------------------------------------


def test_the_policy_that_is_shown_can_be_loaded_again(tmp_path: Path) -> None:
    done = run("policy", "show", "--preset", "strict", env={"SAFECODE_THRESHOLDS__UNSAFE": "0.8"})
    assert done.exit_code == 0
    file = tmp_path / "shown.yaml"
    file.write_text(done.stdout, encoding="utf-8")
    expected = Policy.preset("strict", thresholds={"unsafe": 0.8})
    assert SafeCoDeSettings(policy_file=file).policy() == expected
    assert done.stdout.startswith(f"# digest {expected.digest()}\n")


def test_the_policy_as_json(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('preset = "permissive"', encoding="utf-8")
    shown = only_json(run("policy", "show", file, "--json"))
    expected = Policy.preset("permissive")
    assert shown == {"digest": expected.digest(), "policy": expected.model_dump(mode="json")}
    validated = only_json(run("policy", "validate", file, "--json"))
    assert validated == {"valid": True, "name": "permissive", "digest": expected.digest()}


def test_the_policy_shows_what_is_in_force_with_a_model(tmp_path: Path) -> None:
    """Policy over the model's record over the recipe's values."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llava"}', encoding="utf-8")
    record = {"schema": 1, "steering": {"alpha": 0.7, "guided_steps": 9}}
    (model / "safecode.json").write_text(json.dumps(record), encoding="utf-8")
    file = tmp_path / "p.toml"
    file.write_text("decoding.alpha = 0.2", encoding="utf-8")
    told = only_json(run("policy", "show", file, "--effective", "-m", model, "--json"))
    decoding = told["policy"]["decoding"]
    assert (decoding["alpha"], decoding["guided_steps"], decoding["top_k"]) == (0.2, 9, 20)
    assert told["sources"]["policy"] == ["alpha"]
    assert told["sources"]["model"] == ["guided_steps"]
    assert "top_k" in told["sources"]["recipe"]
    shown = run("policy", "show", file, "--effective", "-m", model).stdout
    assert "# decoding, by model: guided_steps\n" in shown
    again = tmp_path / "again.yaml"
    again.write_text(shown, encoding="utf-8")
    assert SafeCoDeSettings(policy_file=again).policy().decoding.guided_steps == 9


def test_a_paper_recipe_is_not_changed_by_the_models_record() -> None:
    env = {"SAFECODE_DECODING__RECIPE": "paper"}
    told = only_json(run("policy", "show", "--effective", "--json", env=env))
    assert told["sources"]["model"] == []
    assert told["policy"]["decoding"]["normalise"] == "none"


def test_the_policy_schema_is_printed() -> None:
    assert only_json(run("policy", "schema")) == Policy.model_json_schema()


@pytest.mark.parametrize(
    ("text", "said"), [("", "empty"), ("treshold = 1", "thresholds"), ("preset = 'x'", "preset")]
)
def test_an_invalid_policy_exits_with_1(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "p.toml"
    file.write_text(text, encoding="utf-8")
    done = run("policy", "validate", file)
    assert done.exit_code == 1
    assert said in " ".join(done.stderr.split())


def test_a_mistyped_variable_warns_on_stderr_and_leaves_stdout_alone() -> None:
    done = run("policy", "validate", "--json", env={"SAFECODE_PRESETT": "strict"})
    assert only_json(done)["name"] == "balanced"
    assert "SAFECODE_PRESET?" in done.stderr


# -- doctor -------------------------------------------------------------------------------------


def test_doctor_reports_what_is_installed() -> None:
    done = run("doctor", "--json")
    report = only_json(done)
    assert done.exit_code == 0
    assert report["safecode_guard"] == safecode_guard.__version__
    assert report["packages"]["torch"]
    assert report["devices"][0] == "cpu"
    assert set(report["families"]) == {family.name for family in FAMILIES}
    assert report["families"]["llava"] is None
    assert report["policy"]["digest"] == Policy().digest()


def test_doctor_fits_80_columns() -> None:
    done = run("doctor")
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "qwen2_5_vl" in done.stdout


def test_doctor_says_why_a_family_cannot_load() -> None:
    llava = next(family for family in FAMILIES if family.name == "llava")
    assert doctor.why_not(llava) is None
    assert "no_such_package" in str(
        doctor.why_not(replace(llava, needs_packages=("no_such_package",)))
    )
    assert "no image-text-to-text model" in str(doctor.why_not(Family("x", ("no_such_type",))))


def test_doctor_exits_with_1_if_something_needed_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", (*doctor.PACKAGES, "no-such-package"))
    done = run("doctor")
    assert done.exit_code == 1
    assert "no-such-package is not installed" in done.stdout


@pytest.mark.parametrize(
    ("torch", "torchvision", "said"),
    [
        ("2.13.0+cpu", "0.28.0", "another build"),
        ("2.13.0", "0.28.0+cpu", "another build"),
        ("2.13.0+cpu", "0.28.0+cpu", "0.28.0+cpu"),
    ],
)
def test_doctor_sees_a_torchvision_of_another_build(
    torch: str, torchvision: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"torch": torch, "torchvision": torchvision}
    monkeypatch.setattr(doctor, "version", versions.__getitem__)
    assert said in str(doctor._torchvision())


def test_doctor_reports_a_policy_that_cannot_be_loaded() -> None:
    report = only_json(run("doctor", "--json", env={"SAFECODE_POLICY_FILE": "/absent.toml"}))
    assert "absent.toml" in report["policy"]["error"]


# -- verdicts on the screen ---------------------------------------------------------------------


def test_a_verdict_line_says_label_probability_and_action() -> None:
    policy = PolicyRef(name="p", digest="d")
    judged = Verdict(label="unsafe", action="block", p_unsafe=0.987, policy=policy)
    assert screen.verdict_line(judged).plain == "unsafe (p 0.99): block"
    failed = Verdict(label=None, action="review", policy=policy)
    assert screen.verdict_line(failed).plain == "no label: review"
    assert screen.verdict_line(None).plain == "not judged"


def test_a_verdict_table_says_which_pictures_were_looked_at() -> None:
    image = SubjectImage(sha256="a", message_index=0, mime="image/png", width=2, height=3)
    gone = SkippedMedia(message_index=0, block_index=0, kind="image", reason="overflow")
    verdict = Verdict(
        label="unsafe",
        action="block",
        stage="tool_call",
        images=(image,) * 3,
        decided_by=(1, 2),
        left_out=(gone, gone),
        tool_call=ToolCallRef(id="1", name="walk", args_sha256="b"),
        policy=PolicyRef(name="p", digest="d"),
    )
    with screen.out.capture() as shown:
        screen.out.print(screen.verdict_table(verdict))
    text = " ".join(shown.get().split())
    assert "pictures 3, decided by 2, 3; 2 left out" in text
    assert "stage tool_call tool walk" in text


# -- bench --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["speed", "paired"])
def test_a_benchmark_gets_its_own_options_and_gives_the_exit_code(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def main(arguments: list[str]) -> int:
        seen.append(arguments)
        return 7

    module = ModuleType(f"safecode_guard.bench.{name}.run")
    module.main = main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert run("bench", name, "--pairs", "3", "--help", "x").exit_code == 7
    assert seen == [["--pairs", "3", "--help", "x"]]


def test_a_benchmarks_help_is_its_own() -> None:
    done = run("bench", "paired", "--help")
    assert done.exit_code == 0
    assert "--pairs" in done.stdout
    assert "Usage: safecode-guard bench paired" in done.stdout.replace("usage:", "Usage:")


def test_a_benchmark_runs_from_the_command_line() -> None:
    few = ("--pairs", "1", "--scary", "1", "--looks", "1", "--turns", "0")
    done = run("bench", "paired", *few, "--rows", "plain,guarded", "--judges", "truth", "--json")
    assert done.exit_code == 0, done.output
    rows = {(row["strategy"], row["judge"]) for row in only_json(done)["rows"]}
    assert rows == {("plain", "none"), ("guarded", "truth")}
