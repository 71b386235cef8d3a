from __future__ import annotations

from pathlib import Path

import pytest

from safecode_guard.bench.ledger import Ledger
from safecode_guard.errors import GuardError


def test_entries_outlive_the_process(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    Ledger(file).add({"a": {"text": "Größe | \n"}, "b": 2})
    again = Ledger(file)
    assert (again["a"], again["b"], len(again)) == ({"text": "Größe | \n"}, 2, 2)
    assert "c" not in again


def test_a_line_that_was_cut_off_is_dropped_and_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    Ledger(file).add({"a": 1, "b": 2})
    file.write_text(file.read_text(encoding="utf-8")[:-4], encoding="utf-8")
    broken = Ledger(file)
    assert "a" in broken
    assert "b" not in broken
    broken.add({"b": 3})
    assert (Ledger(file)["a"], Ledger(file)["b"]) == (1, 3)


def test_another_file_is_not_taken_for_a_record(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("hello\nworld\n", encoding="utf-8")
    with pytest.raises(GuardError, match="no record"):
        Ledger(file)
    assert file.read_text(encoding="utf-8") == "hello\nworld\n"


def test_another_file_of_one_line_without_an_end_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("hello", encoding="utf-8")
    with pytest.raises(GuardError, match="no record"):
        Ledger(file)
    assert file.read_text(encoding="utf-8") == "hello"


@pytest.mark.parametrize("kept", range(1, 12))
def test_a_file_may_be_cut_off_anywhere(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "run.jsonl"
    Ledger(file).add({"a": "ö", "b": 2})
    whole = file.read_bytes()
    file.write_bytes(whole[:kept])
    broken = Ledger(file)
    broken.add({key: value for key, value in {"a": "ö", "b": 2}.items() if key not in broken})
    assert file.read_bytes() == whole


def test_the_last_of_two_entries_under_one_key_counts(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    ledger = Ledger(file)
    ledger.add({"a": 1})
    ledger.add({"a": 2})
    assert (ledger["a"], Ledger(file)["a"], len(ledger)) == (2, 2, 1)


def test_without_a_file_nothing_is_written(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.add({"a": 1})
    assert ledger["a"] == 1
    assert list(tmp_path.iterdir()) == []
