from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from safecode_guard.judges.folders import family_in, identity_of
from safecode_guard.models.families import GENERIC

BIG = 3_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "judge"
    made.mkdir()
    (made / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
    (made / "model.safetensors").write_bytes(bytes(BIG))
    return made


def test_directory_is_named_by_its_last_part_and_a_digest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = identity_of(str(folder))
    assert name.startswith("judge@")
    assert os.sep not in name
    monkeypatch.chdir(folder)
    assert {name} == {identity_of(f"{folder}/"), identity_of("."), identity_of("../judge")}


@pytest.mark.parametrize("at", [0, 100_000 * 7, BIG // 2, BIG - 65_536])
def test_other_weights_of_the_same_shape_have_another_digest(folder: Path, at: int) -> None:
    before = identity_of(str(folder))
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(at)
        file.write(b"x" * 200_000)
    assert identity_of(str(folder)) != before


@pytest.mark.parametrize("name", ["safecode.json", "config.json", "chat_template.jinja", "b.bin"])
def test_every_file_of_the_model_counts(folder: Path, name: str) -> None:
    before = identity_of(str(folder))
    (folder / name).write_text("{}")
    assert identity_of(str(folder)) != before


def test_other_files_and_folders_do_not(folder: Path) -> None:
    before = identity_of(str(folder))
    (folder / "README.md").write_text("words")
    (folder / "extra.json").mkdir()
    assert identity_of(str(folder)) == before


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct"),
        ("gpt2", "gpt2"),
        ("/nowhere/models/judge", "judge"),
        ("../nowhere/judge", "judge"),
        ("~/judge", "judge"),
        ("a/b/judge", "judge"),
    ],
)
def test_hub_names_stay_and_paths_lose_their_way(model: str, name: str) -> None:
    assert identity_of(model) == name


def test_family_is_read_from_config_and_record(folder: Path) -> None:
    family = family_in(str(folder))
    assert family is not None
    assert (family.name, family.judge_prompt) == ("qwen2_vl", None)
    record = {"schema": 1, "family": "llava", "judge_prompt": "{query}? safe or unsafe."}
    (folder / "safecode.json").write_text(json.dumps(record))
    family = family_in(str(folder))
    assert family is not None
    assert (family.name, family.judge_prompt) == ("llava", "{query}? safe or unsafe.")


def test_family_may_depend_on_the_vision_tower(folder: Path) -> None:
    config = {"model_type": "llava", "vision_config": {"model_type": "pixtral"}}
    (folder / "config.json").write_text(json.dumps(config))
    family = family_in(str(folder))
    assert family is not None
    assert family.name == "pixtral"


def test_unknown_architecture_is_generic(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    assert family_in(str(folder)) == GENERIC


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.json", "{"), ("config.json", "[]"), ("safecode.json", '{"schema": 99}')],
)
def test_what_cannot_be_read_is_left_to_loading(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    assert family_in(str(folder)) is None
    assert family_in("Qwen/Qwen2.5-VL-3B-Instruct") is None
