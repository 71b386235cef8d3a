from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from safecode_guard.cli.app import app


def run(*arguments: str | Path):
    return CliRunner().invoke(app, ["refusals", *map(str, arguments)])


def test_the_embedded_models_coverage():
    found = json.loads(run("--json", "--language", "en", "--phrase", "I |shall not").stdout)
    roots = {root["text"]: root for root in found["roots"]}
    assert roots["I"]["pushed"]
    assert 0 <= roots["I"]["ordinary"] <= 1
    assert all(r["pushed"] is False for t, r in roots.items() if len(t) == 1 and t not in "Ii")
    assert set(found) == {"roots", "unwritten", "uncovered"}


def test_it_is_shown():
    done = run("--language", "en")
    assert done.exit_code == 0
    assert "First tokens of refusals" in done.stdout
    assert "phrases can be written." in done.stdout


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path):
    done = run("--model", tmp_path)
    assert done.exit_code == 1
    assert "No tokenizer" in done.stderr
