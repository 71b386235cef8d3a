"""Writers are killed in the middle of their work, a thousand times: nothing written is lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from safecode_guard.audit import entries, verify

KILLS = int(os.environ.get("SOAK_KILLS", "1000"))
WRITER = """
import sys
from safecode_guard.audit import AuditLog
from safecode_guard.verdict import PolicyRef, Verdict
log = AuditLog(sys.argv[1], fsync="never")
for number in range(10**9):
    log(Verdict(id=f"{sys.argv[2]}-{number}", label="safe", action="pass",
                policy=PolicyRef(name="p" * 2000, digest="d")))
    print(number, flush=True)
"""


def test_two_writers_killed_again_and_again(tmp_path: Path) -> None:
    path, draw = tmp_path / "log.jsonl", random.Random(0)
    told: dict[str, int] = {}
    for round_ in range(KILLS // 2):
        writers = []
        for name in (f"a{round_}", f"b{round_}"):
            command = [sys.executable, "-c", WRITER, str(path), name]
            writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            writers.append((name, writer))
        for _, writer in writers:
            writer.stdout.readline()  # it is at work
        time.sleep(draw.random() * 0.02)
        for name, writer in writers:
            writer.kill()
            lines = writer.stdout.read().split()
            told[name] = int(lines[-1]) if lines else 0
            writer.stdout.close()
            writer.wait()
    found = verify(path)
    assert found.broken == ()
    assert len(found.torn) <= KILLS
    written = {e.verdict.id for e in entries(path) if e.verdict}
    lost = [f"{n}-{i}" for n, last in told.items() for i in range(last + 1)]
    assert [one for one in lost if one not in written] == []
