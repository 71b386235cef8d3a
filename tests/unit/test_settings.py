from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from safecode_guard.errors import PolicyError
from safecode_guard.policy import Policy, Thresholds, key_paths
from safecode_guard.settings import SafeCoDeSettings, UnknownSettingWarning, read_policy_file

TOML = """
preset = "strict"
on_block = "raise"
deadline_s = 30

[thresholds]
unsafe = 0.7

[judge]
kind = "local"
model = "some/judge"

[images]
allow_urls = true
url_hosts = ["img.example"]

[category_actions]
situational = "block"

[stages.output]
when = "always"

[stages.tool_call.tools]
"get_*" = "skip"
"pay_*" = { unsafe = "block" }
"""
YAML = """
preset: strict
on_block: raise
deadline_s: 30
thresholds: {unsafe: 0.7}
judge:
  kind: local
  model: some/judge
images:
  allow_urls: true
  url_hosts: [img.example]
category_actions:
  situational: block
stages:
  output: {when: always}
  tool_call:
    tools:
      get_*: skip
      pay_*: {unsafe: block}
"""
ENVIRONMENT = {
    "SAFECODE_PRESET": "strict",
    "SAFECODE_ON_BLOCK": "raise",
    "SAFECODE_DEADLINE_S": "30",
    "SAFECODE_THRESHOLDS__UNSAFE": "0.7",
    "SAFECODE_JUDGE__KIND": "local",
    "SAFECODE_JUDGE__MODEL": "some/judge",
    "SAFECODE_IMAGES__ALLOW_URLS": "true",
    "SAFECODE_IMAGES__URL_HOSTS": '["img.example"]',
    "SAFECODE_CATEGORY_ACTIONS__SITUATIONAL": "block",
    "SAFECODE_STAGES__OUTPUT__WHEN": "always",
    "SAFECODE_STAGES__TOOL_CALL__TOOLS": '{"get_*": "skip", "pay_*": {"unsafe": "block"}}',
}
CODE: dict[str, Any] = {
    "on_block": "raise",
    "deadline_s": 30,
    "thresholds": {"unsafe": 0.7},
    "judge": {"kind": "local", "model": "some/judge"},
    "images": {"allow_urls": True, "url_hosts": ["img.example"]},
    "category_actions": {"situational": "block"},
    "stages": {
        "output": {"when": "always"},
        "tool_call": {"tools": {"get_*": "skip", "pay_*": {"unsafe": "block"}}},
    },
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("SAFECODE_"):
            monkeypatch.delenv(name)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# -- one policy, four ways ----------------------------------------------------------------------


def test_a_policy_is_the_same_from_env_toml_yaml_and_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coded = Policy.preset("strict", **CODE)
    toml = SafeCoDeSettings(policy_file=write(tmp_path, "p.toml", TOML)).policy()
    yaml = SafeCoDeSettings(policy_file=str(write(tmp_path, "p.yaml", YAML))).policy()
    given = SafeCoDeSettings(preset="strict", **CODE).policy()
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    env = SafeCoDeSettings().policy()
    assert coded == toml == yaml == given == env
    assert {p.digest() for p in (coded, toml, yaml, given, env)} == {coded.digest()}


def test_nothing_said_is_the_default_policy() -> None:
    assert SafeCoDeSettings().policy() == Policy()
    assert SafeCoDeSettings().policy().digest() == Policy().digest()


# -- which source wins --------------------------------------------------------------------------


def test_code_wins_over_env_over_file_over_secrets_over_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(
        tmp_path, "p.yml", "thresholds: {unsafe: 0.61, safe: 0.1}\ndeadline_s: 1\non_block: raise"
    )
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    write(secrets, "safecode_on_block", "message")
    write(secrets, "safecode_judge__caption", "true")
    write(secrets, "safecode_preset", "strict")
    write(secrets, "somebody_elses", "x")
    monkeypatch.setenv("SAFECODE_POLICY_FILE", str(file))
    monkeypatch.setenv("SAFECODE_THRESHOLDS__UNSAFE", "0.62")
    monkeypatch.setenv("SAFECODE_DEADLINE_S", "2")
    policy = SafeCoDeSettings(deadline_s=3, secrets_dir=secrets).policy()
    assert policy.deadline_s == 3  # code over environment
    assert policy.thresholds == Thresholds(unsafe=0.62, safe=0.1)  # environment over file
    assert policy.on_block == "raise"  # file over secrets
    assert policy.judge.caption is True  # secrets over default
    assert policy.actions.judge_error == "block"  # the preset, named by a secret


def test_a_preset_gives_way_key_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFECODE_ACTIONS__UNSAFE", "block")
    policy = SafeCoDeSettings(preset="strict").policy()
    assert policy.actions.unsafe == "block"
    assert policy.actions.judge_error == "block"
    assert policy.name == "strict"


def test_the_file_can_be_named_in_code_against_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFECODE_POLICY_FILE", str(tmp_path / "absent.toml"))
    file = write(tmp_path, "p.toml", 'name = "mine"')
    assert SafeCoDeSettings(policy_file=file).policy().name == "mine"


def test_null_in_the_environment_takes_a_value_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFECODE_DEADLINE_S", "null")
    file = write(tmp_path, "p.toml", "deadline_s = 5")
    assert SafeCoDeSettings(policy_file=file).policy().deadline_s is None


# -- a configuration that was meant and cannot be read stops the program -------------------------


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.toml", "", "empty"),
        ("p.yaml", "", "empty"),
        ("p.yaml", "# preset: strict\n", "empty"),
        ("p.yaml", "{}", "empty"),
        ("p.toml", "preset = ", "malformed"),
        ("p.yaml", "a: [", "malformed"),
        ("p.yaml", "actions: {safe: pass}\nactions: {unsafe: block}", "repeated key 'actions'"),
        ("p.toml", "[actions]\n[actions]", "malformed"),
        ("p.yaml", "- preset", "table"),
        ("p.yaml", "1: 2", "table"),
        ("p.yaml", "strict", "table"),
        ("p.ini", "preset = strict", "'.ini'"),
        ("p.toml", 'policy_file = "other.toml"', "another policy file"),
        ("p.yaml", "!!python/object/apply:os.getcwd []", "malformed"),
    ],
)
def test_an_unusable_file_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(PolicyError) as caught:
        SafeCoDeSettings(policy_file=path)
    assert said in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        SafeCoDeSettings(policy_file=tmp_path / "absent.toml")
    with pytest.raises(PolicyError, match="Cannot read"):
        read_policy_file(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: bö".encode("latin-1"))
    with pytest.raises(PolicyError, match="malformed"):
        SafeCoDeSettings(policy_file=latin)
    monkeypatch.setenv("SAFECODE_POLICY_FILE", str(tmp_path / "absent.yaml"))
    with pytest.raises(PolicyError, match="No such file"):
        SafeCoDeSettings()


@pytest.mark.parametrize("nothing", ["", "  "])
def test_a_file_named_by_nothing_is_refused(nothing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFECODE_POLICY_FILE", nothing)
    with pytest.raises(PolicyError, match="no name"):
        SafeCoDeSettings()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SAFECODE_PRESET", "lenient", "preset"),
        ("SAFECODE_PRESET", "", "preset"),
        ("SAFECODE_THRESHOLDS__UNSAFE", "", "thresholds.unsafe"),
        ("SAFECODE_THRESHOLDS__UNSAVE", "0.5", "did you mean 'thresholds.unsafe'"),
        ("SAFECODE_ACTIONS__JUDGE_ERROR", "pass", "actions.judge_error"),
        ("SAFECODE_IMAGES__URL_HOSTS", "img.example", "JSON"),
        ("SAFECODE_THRESHOLDS", "0.5", "thresholds"),
        ("SAFECODE_CATEGORY_ACTIONS__ARSON", "block", "category_actions.arson"),
    ],
)
def test_a_wrong_variable_is_refused(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(PolicyError) as caught:
        SafeCoDeSettings()
    assert said in str(caught.value)


def test_a_wrong_argument_is_refused() -> None:
    with pytest.raises(PolicyError, match="did you mean 'on_block'"):
        SafeCoDeSettings(onblock="raise")


def test_a_missing_secrets_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="does not exist"):
        SafeCoDeSettings(secrets_dir=tmp_path / "absent")


def test_a_policy_file_named_by_a_secret_is_refused_and_not_ignored(tmp_path: Path) -> None:
    write(tmp_path, "safecode_policy_file", "p.toml")
    with pytest.raises(PolicyError, match="too late"):
        SafeCoDeSettings(secrets_dir=tmp_path)


# -- typing errors that pydantic-settings would not see ------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SAFECODE_PRESETS", "SAFECODE_PRESET"),
        ("SAFECODE_THRESHOLDS_UNSAFE", "SAFECODE_THRESHOLDS__UNSAFE"),
        ("SAFECODE_THRESHOLD__UNSAFE", "SAFECODE_THRESHOLDS__UNSAFE"),
        ("safecode_polycy_file", "SAFECODE_POLICY_FILE"),
        ("SAFECODE_NAME__X", "SAFECODE_NAME"),
    ],
)
def test_an_unknown_variable_warns_with_what_was_meant(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.warns(UnknownSettingWarning, match=f"'{name}'.*mean {meant}[?]") as caught:
        SafeCoDeSettings()
    assert caught[0].filename == __file__


def test_an_unknown_secret_warns(tmp_path: Path) -> None:
    write(tmp_path, "safecode_presett", "strict")
    with pytest.warns(UnknownSettingWarning, match="secret 'safecode_presett'"):
        SafeCoDeSettings(secrets_dir=tmp_path)


def test_known_variables_do_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SAFECODER_HOME", "someone else's")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownSettingWarning)
        assert SafeCoDeSettings().policy().name == "strict"


def test_every_key_of_a_policy_is_a_known_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownSettingWarning)
        for path in key_paths():
            with monkeypatch.context() as patch:
                patch.setenv("SAFECODE_" + path.upper().replace(".", "__"), "\x01")
                with (
                    pytest.raises(PolicyError)
                    if path.rpartition(".")[2] not in FREE_TEXT and path != "decoding.prototypes"
                    else warnings.catch_warnings()
                ):
                    SafeCoDeSettings()


FREE_TEXT = (
    *("name", "strategy", "refusal_text", "review_text"),
    *("cache_path", "calibration"),
)
