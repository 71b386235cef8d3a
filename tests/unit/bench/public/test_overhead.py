from __future__ import annotations

import json
from pathlib import Path

import pytest

from safecode_guard.bench.public.overhead import main, measure_overhead


def test_every_item_is_played_and_measured(tmp_path: Path) -> None:
    found = measure_overhead(tmp_path, 80, rows="plain,block")
    assert (found["items"], found["lines"]) == (80, 2)
    assert found["ms_per_item"] > 0
    lines = (tmp_path / "run.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(json.loads(line)[0].startswith("answer|") for line in lines) == 160


def test_the_command_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--items", "8"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 8
