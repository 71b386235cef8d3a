"""Tables on the terminal: readable at any width."""

from __future__ import annotations

import pytest

from safecode_guard.bench.tables import show_table

COLUMNS = ("strategy", "judge", *(f"long heading {i}" for i in range(9)))
ROWS = [["modulation_scaled", "always_unsafe", *(f"{i}.5 (1.0 to 2.0)" for i in range(9))]]


@pytest.mark.parametrize("width", [60, 80, 120, 400])
def test_nothing_is_cut_off(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    show_table("All of it", COLUMNS, ROWS, keys=2)
    out = capsys.readouterr().out
    assert all(len(line) <= width for line in out.splitlines())
    assert "…" not in out
    assert out.count("All of it") == 1
    for cell in ROWS[0][2:]:
        assert out.count(cell) == 1
    parts = out.count("modulation_scaled")
    assert parts == out.count("always_unsafe")
    assert (parts == 1) is (width == 400)


def test_an_empty_table_has_its_headings(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("Empty", ("a", "b"), [])
    assert "a" in capsys.readouterr().out
