from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safecode_guard.errors import PolicyError
from safecode_guard.judges.folders import family_in, folder_of, identity_of
from safecode_guard.judges.names import config_of, require_model, values_of
from safecode_guard.policy import LocalJudgeConfig
from safecode_guard.tiny.load import weights_path


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("light", {"kind": "local", "model": "light"}),
        ("org/judge", {"kind": "local", "model": "org/judge"}),
        (
            "openai:http://host:8000/v1#org/judge",
            {"kind": "http", "url": "http://host:8000/v1", "model": "org/judge"},
        ),
    ],
)
def test_a_name_stands_for_a_configuration(name: str, values: dict[str, Any]) -> None:
    assert values_of(name) == values
    assert config_of(name).model_dump(include=set(values)) == values


@pytest.mark.parametrize(
    "name",
    ["openai:", "openai:http://h/v1", "openai:#m", "http://h/v1#m", "openai:h/v1#m"],
)
def test_half_an_address_is_refused_with_its_form(name: str) -> None:
    with pytest.raises(PolicyError, match="openai:http://host:8000/v1#model"):
        config_of(name)


@pytest.mark.parametrize("name", ["light", "nano"])
def test_embedded_judges_lie_where_their_weights_are(name: Any) -> None:
    assert folder_of(name) == str(weights_path(name))
    assert identity_of(folder_of(name)).startswith(f"{name}@")
    assert family_in(folder_of(name)) is not None
    require_model(LocalJudgeConfig(model=name))


def test_a_directory_of_the_same_name_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "light").mkdir()
    monkeypatch.chdir(tmp_path)
    assert folder_of("light") == "light"
    with pytest.raises(PolicyError, match=r"no config\.json"):
        require_model(LocalJudgeConfig(model="light"))


def test_what_was_meant_may_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "judge").mkdir()
    with pytest.raises(PolicyError, match="Did you mean '.*/judge'"):
        require_model(LocalJudgeConfig(model=str(tmp_path / "jugde")))


def test_what_may_be_fetched_is_not_looked_for() -> None:
    require_model(LocalJudgeConfig(model="org/judge", local_files_only=False))
    with pytest.raises(PolicyError, match="Embedded are 'light' and 'nano'"):
        require_model(LocalJudgeConfig(model="org/judge"))
