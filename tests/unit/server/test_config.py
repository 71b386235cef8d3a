from __future__ import annotations

from pathlib import Path

import pytest

from safecode_guard.errors import PolicyError
from safecode_guard.server import read_keys

KEY, OTHER = "k" * 20, "o" * 20


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "keys"
    path.write_text(text)
    return path


def test_keys_are_read_and_never_shown(tmp_path: Path) -> None:
    keys = read_keys(written(tmp_path, f"# callers\n\nann: {KEY}\nbob :  {OTHER}\n"))
    assert {name: key.get_secret_value() for name, key in keys.items()} == {
        "ann": KEY,
        "bob": OTHER,
    }
    assert KEY not in repr(keys)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no key"),
        ("# nobody\n", "no key"),
        (KEY, "Line 1"),
        (f": {KEY}", "Line 1"),
        ("ann: short", "16 letters"),
        (f"ann: {KEY}\nann: {OTHER}", "Line 2"),
        (f"ann: {KEY}\nbob: {KEY}", "key of another"),
        (f"ann: {KEY} {OTHER}", "Line 1"),
        (f"ann: ü{KEY}", "Line 1"),
    ],
)
def test_a_file_that_is_no_list_of_keys_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(PolicyError, match=told) as caught:
        read_keys(written(tmp_path, text))
    assert KEY not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="Cannot read the keys"):
        read_keys(tmp_path / "none")
