"""Audit logs that are put aside, pruned, and written by several."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from safecode_guard import Verdict
from safecode_guard.audit import AuditLog, entries, statistics_of, verify
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


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 200_000,
        b'{"at":' + b"[" * 200_000,
        b'{"at": 1, "hash": [], "prev": {}, "verdict": 1}',
        b'{"at": "", "hash": "", "prev": "", "verdict": {"label": "harmless"}}',
        b"\xff\xfe",
        b"1" * 5000,
    ],
)
def test_what_somebody_wrote_into_it_shows_and_stops_nothing(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "v.jsonl"
    log = AuditLog(path)
    log(verdict())
    with path.open("ab") as file:
        file.write(line + b"\n")
    AuditLog(path)(verdict())
    found = verify(path)
    assert [*found.torn, *found.broken][0] == "v.jsonl:2"
    assert statistics_of(path)["verdicts"] == 2
    assert [entry.verdict is None for entry in entries(path)] == [False, True, False]


def test_a_disk_that_is_full_stops_the_turn_and_breaks_no_chain(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    code = f"""
import resource, signal
from safecode_guard.audit import AuditLog
from safecode_guard.errors import AuditError
from tests.unit.attack.test_audit_files import verdict
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = AuditLog({str(path)!r})
log(verdict())
resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 200, resource.RLIM_INFINITY))
for _ in range(3):
    try:
        log(verdict())
    except AuditError as error:
        assert "cannot be written" in str(error)
    else:
        raise SystemExit("it wrote beyond the limit")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log(verdict())
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
    found = verify(path)
    assert (found.entries, found.sound, len(found.torn)) == (2, True, 1)
