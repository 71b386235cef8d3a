from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from safecode_guard import Policy, SafeCoDeCheck
from safecode_guard.errors import PolicyError
from safecode_guard.judges.cache import JudgementCache
from safecode_guard.judges.disk_cache import DiskCache
from safecode_guard.testing import ScriptedJudge
from safecode_guard.verdict import Judgement
from tests.messages import ask

FOUND = Judgement(judge_id="j", prompt_version="1", p_unsafe=0.7, caption="A cliff.")


def test_a_judgement_is_there_after_the_next_start_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    DiskCache(path, size=10).put("a", FOUND)
    again = DiskCache(path, size=10)
    assert again.get("a") == FOUND.model_copy(update={"caption": None})
    assert again.get("b") is None
    assert b"cliff" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_content_is_kept_if_asked_for(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache.sqlite", size=10, content=True)
    cache.put("a", FOUND)
    assert cache.get("a") == FOUND


def test_the_oldest_are_dropped(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache.sqlite", size=3)
    for key in "abcde":
        cache.put(key, FOUND)
        cache.put(key, FOUND)
    assert [cache.get(key) is not None for key in "abcde"] == [False, False, True, True, True]


def test_the_memory_asks_the_file_and_fills_it(tmp_path: Path) -> None:
    below = DiskCache(tmp_path / "cache.sqlite", size=10)
    first = JudgementCache(10, below=below)
    first.put("a", FOUND)
    failed = Judgement(judge_id="j", prompt_version="1", failed="down", parse_status="not_run")
    first.put("b", failed)
    second = JudgementCache(10, below=below)
    kept = second.get("a")
    assert kept is not None
    assert kept.cached
    assert second.get("b") is None
    assert len(second) == 1
    no_memory = JudgementCache(0, below=below)
    assert no_memory.get("a") is not None


def test_a_check_is_answered_from_another_ones_file(tmp_path: Path) -> None:
    policy = Policy.load(
        {"judge": {"kind": "custom", "id": "x", "cache_path": str(tmp_path / "c")}}
    )
    first, second = ScriptedJudge(0.9, id="x"), ScriptedJudge(0.9, id="x")
    fresh = SafeCoDeCheck(judge=first, policy=policy).check(ask())
    known = SafeCoDeCheck(judge=second, policy=policy).check(ask())
    assert (len(first.requests), len(second.requests)) == (1, 0)
    assert (fresh.label, known.label) == ("unsafe", "unsafe")
    assert known.judge is not None
    assert known.judge.cached


async def test_the_file_is_read_and_written_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    opened = DiskCache._open

    def noted(self: DiskCache, *args: float) -> sqlite3.Connection:
        threads.append(threading.current_thread())
        return opened(self, *args)

    path = str(tmp_path / "cache.sqlite")
    policy = Policy.load({"judge": {"kind": "custom", "id": "x", "cache_path": path}})
    check = SafeCoDeCheck(judge=ScriptedJudge(0.9, id="x"), policy=policy)
    monkeypatch.setattr(DiskCache, "_open", noted)
    assert (await check.acheck(ask())).label == "unsafe"
    assert len(threads) == 2
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("content", [b"no database", b""])
def test_a_file_of_another_kind_is_told_and_an_empty_one_used(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_bytes(content * 100)
    if content:
        with pytest.raises(PolicyError, match="cannot be opened"):
            DiskCache(path, size=10)
    else:
        DiskCache(path, size=10).put("a", FOUND)


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(PolicyError, match="cannot be opened"):
        DiskCache(Path("a\0b"), size=10)


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cache_path"):
        DiskCache(tmp_path / "none" / "cache.sqlite", size=10)


def test_what_somebody_wrote_into_it_is_no_judgement(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    cache = DiskCache(path, size=10)
    with sqlite3.connect(path) as file:
        file.execute("INSERT INTO judgements VALUES ('a', '{\"p_unsafe\": -1}')")
    assert cache.get("a") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"p_unsafe": None},
        {"p_unsafe": 0.9, "label": "safe"},
        {"p_unsafe": None, "failed": "it broke"},
        {"parse_status": "malformed"},
        {"parse_status": "not_run"},
        {"parse_status": "low_mass"},
    ],
)
def test_a_row_that_no_judge_can_have_meant_is_none(
    changes: dict[str, object], tmp_path: Path
) -> None:
    cache = DiskCache(tmp_path / "cache.sqlite", size=10)
    cache.put("a", FOUND.model_copy(update=changes))
    assert cache.get("a") is None


def test_a_locked_file_costs_a_judgement_and_no_turn(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    cache = DiskCache(path, size=10)
    held = sqlite3.connect(path)
    held.execute("BEGIN EXCLUSIVE")
    cache.put("a", FOUND)
    held.rollback()
    held.close()
    assert cache.get("a") is None
    cache.put("a", FOUND)
    assert cache.get("a") is not None


WRITER = """
import sys
from pathlib import Path
from safecode_guard.judges.disk_cache import DiskCache
from safecode_guard.verdict import Judgement
cache = DiskCache(Path(sys.argv[1]), size=10_000)
for n in range(100):
    cache.put(f"{sys.argv[2]}-{n}", Judgement(judge_id="j", prompt_version="1", p_unsafe=0.5))
"""


def test_several_processes_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in ("a", "b")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    cache = DiskCache(path, size=10_000)
    kept = sum(cache.get(f"{name}-{n}") is not None for name in "ab" for n in range(100))
    assert kept >= 190  # a writer that waits too long lets go
