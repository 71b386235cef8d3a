from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safecode_guard.audit import AuditLog
from safecode_guard.cli.app import app
from safecode_guard.verdict import PolicyRef, Verdict


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    write = AuditLog(path, fsync="never")
    for i in range(4):
        write(
            Verdict(id=f"v{i}", label="safe", action="pass", policy=PolicyRef(name="p", digest="d"))
        )
    return path


def run(*arguments: str):
    return CliRunner().invoke(app, ["audit", *arguments])


def test_a_sound_log(log: Path) -> None:
    done = run("verify", str(log))
    assert (done.exit_code, "Sound: 4 verdicts" in done.output) == (0, True)
    found = json.loads(run("verify", str(log), "--json").output)
    assert (found["sound"], found["entries"]) == (True, 4)


def test_a_changed_and_a_torn_line(log: Path) -> None:
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([lines[0], lines[1].replace("safe", "unsafe"), lines[2], lines[3][:40]]))
    done = run("verify", str(log))
    assert done.exit_code == 1
    assert "log.jsonl:2 is not what was written there" in done.output
    assert "torn line at log.jsonl:4" in done.output


def test_the_newest_and_the_sum(log: Path) -> None:
    assert [
        json.loads(x)["id"]
        for x in run("tail", str(log), "-n", "2", "--json").output.split("\n")
        if x
    ] == ["v2", "v3"]
    assert run("tail", str(log)).output.count("input") == 4
    assert json.loads(run("stats", str(log), "--json").output)["labels"] == {"safe": 4}
    assert "safe 4" in run("stats", str(log)).output


def test_no_such_log(tmp_path: Path) -> None:
    done = run("verify", str(tmp_path / "none"))
    assert done.exit_code != 0
