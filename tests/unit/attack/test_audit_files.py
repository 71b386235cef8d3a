"""Audit logs that are put aside, pruned, and written by several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safecode_guard import Verdict
from safecode_guard.audit import AuditLog, entries, verify
from safecode_guard.errors import AuditError
from tests.messages import ask
from tests.unit.runnables.guards import guarded


def verdict() -> Verdict:
    return guarded(0.1).check(ask()).model_copy(update={"judge": None})


def test_a_file_put_aside_is_never_written_over(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "v.jsonl", max_bytes=1)
    for _ in range(4):
        log(verdict())
    (tmp_path / "v.jsonl.1").unlink()  # an operator frees the disk
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("v.jsonl.[0-9]")}
    log(verdict())
    log(verdict())
    assert kept == {name: (tmp_path / name).read_bytes() for name in kept}
    assert len(list(entries(tmp_path / "v.jsonl"))) == 5


def test_two_writers_keep_one_chain_over_a_rotation(tmp_path: Path) -> None:
    probe = AuditLog(tmp_path / "probe.jsonl")
    probe(verdict())
    line = (tmp_path / "probe.jsonl").stat().st_size
    one = AuditLog(tmp_path / "v.jsonl", max_bytes=2 * line - 20)
    two = AuditLog(tmp_path / "v.jsonl", max_bytes=2 * line - 20)
    for writer in (one, two, two, one):
        writer(verdict())
    assert verify(tmp_path / "v.jsonl").sound


@pytest.mark.parametrize(
    "options", [{"fsync": "Always"}, {"max_bytes": "1 MB"}, {"max_bytes": -1}, {"max_bytes": 0}]
)
def test_a_log_that_is_set_up_wrongly_does_not_start(tmp_path: Path, options: Any) -> None:
    with pytest.raises(AuditError):
        AuditLog(tmp_path / "v.jsonl", **options)
