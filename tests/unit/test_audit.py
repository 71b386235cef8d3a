from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from safecode_guard import AuditError, AuditLog, ChatTransformers, SafeCoDeCheck, SafeCoDeGuard
from safecode_guard.audit import GENESIS, entries, statistics_of, verify
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from safecode_guard.verdict import Judgement, PolicyRef, Verdict
from tests.messages import ask


def verdict(number: int = 0, **fields: object) -> Verdict:
    known = {"label": "safe", "action": "pass", "policy": PolicyRef(name="p", digest="d")}
    return Verdict.model_validate(known | {"id": f"v{number}"} | fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def test_lines_are_chained_and_read_back(path: Path) -> None:
    log = AuditLog(path)
    assert log.head == GENESIS
    for i in range(5):
        log(verdict(i))
    found = verify(path)
    assert (found.entries, found.torn, found.broken, found.sound) == (5, (), (), True)
    assert found.head == log.head
    assert [e.verdict.id for e in entries(path)] == [f"v{i}" for i in range(5)]


def test_a_guard_writes_before_it_answers_and_a_check_too(path: Path) -> None:
    log = AuditLog(path, fsync="never")
    model = ChatTransformers.from_engine(ScriptedVLM("Yes."), temperature=0)
    SafeCoDeGuard(model=model, judge=ScriptedJudge(0.1), sinks=[log]).invoke(ask())
    SafeCoDeCheck(judge=ScriptedJudge(0.9), sinks=[log]).check(ask())
    told = [(e.verdict.label, e.verdict.obeyed) for e in entries(path)]
    assert told == [("safe", None), ("safe", True), ("unsafe", None)]


def test_what_cannot_be_recorded_is_not_answered(path: Path) -> None:
    log = AuditLog(path)
    model = ChatTransformers.from_engine(ScriptedVLM("Yes."), temperature=0)
    guard = SafeCoDeGuard(model=model, judge=ScriptedJudge(0.1), sinks=[log])
    path.mkdir()
    with pytest.raises(AuditError, match="cannot be written"):
        guard.invoke(ask())
    with pytest.raises(AuditError, match="cannot be written"):
        list(guard.stream(ask()))


def test_content_stays_out_unless_asked_for(tmp_path: Path) -> None:
    with_caption = verdict(caption="a cliff", rationale="steep")
    for content in (False, True):
        path = tmp_path / f"{content}.jsonl"
        AuditLog(path, content=content)(with_caption)
        assert ("a cliff" in path.read_text()) is content
        assert ("steep" in path.read_text()) is content


def _changed(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace('"safe"', '"unsafe"'), *lines[2:]]


@pytest.mark.parametrize(
    ("tamper", "where"),
    [
        (_changed, ("log.jsonl:2", "log.jsonl:3")),
        (lambda lines: [lines[0], *lines[2:]], ("log.jsonl:2",)),
        (lambda lines: [lines[1], *lines[1:]], ("log.jsonl:1", "log.jsonl:2")),
        (
            lambda lines: [lines[1], lines[0], *lines[2:]],
            ("log.jsonl:1", "log.jsonl:2", "log.jsonl:3"),
        ),
    ],
    ids=["changed", "removed", "doubled", "swapped"],
)
def test_what_was_done_to_a_log_shows(path: Path, tamper, where) -> None:
    log = AuditLog(path)
    for i in range(4):
        log(verdict(i))
    path.write_text("".join(tamper(path.read_text().splitlines(keepends=True))))
    found = verify(path)
    assert found.broken == where
    assert not found.sound


@pytest.mark.parametrize("cut", [1, 20, 300])
def test_a_torn_line_is_told_and_costs_no_other(path: Path, cut: int) -> None:
    log = AuditLog(path)
    for i in range(3):
        log(verdict(i))
    path.write_bytes(path.read_bytes()[:-cut])
    AuditLog(path)(verdict(9))
    found = verify(path)
    assert found.sound
    assert found.torn == (() if cut == 1 else ("log.jsonl:3",))
    ids = [e.verdict.id for e in entries(path) if e.verdict]
    assert ids == (["v0", "v1", "v2", "v9"] if cut == 1 else ["v0", "v1", "v9"])


def test_files_put_aside_belong_to_the_chain(path: Path) -> None:
    log = AuditLog(path, max_bytes=900)
    for i in range(12):
        log(verdict(i))
    assert len(list(path.parent.glob("log.jsonl.[0-9]*"))) > 2
    found = verify(path)
    assert (found.entries, found.broken) == (12, ())
    again = AuditLog(path, max_bytes=900)
    again(verdict(12))
    assert verify(path).sound


def test_threads_and_several_logs_write_one_chain(path: Path) -> None:
    logs = [AuditLog(path, fsync="never") for _ in range(2)]

    def write(log: AuditLog) -> None:
        for i in range(25):
            log(verdict(i))

    threads = [threading.Thread(target=write, args=(logs[i % 2],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = verify(path)
    assert (found.entries, found.sound, found.torn) == (100, True, ())


def test_what_verdicts_add_up_to(path: Path) -> None:
    check = SafeCoDeCheck(
        judge=ScriptedJudge([0.1, 0.9, Judgement(judge_id="x", prompt_version="1")]),
        sinks=[AuditLog(path)],
    )
    for i in range(3):
        check.check(ask(f"question {i}"))
    found = statistics_of(path)
    assert found["verdicts"] == 3
    assert found["labels"] == {"safe": 1, "unsafe": 1, "None": 1}
    assert found["failed"] == 1
    json.dumps(found)


def test_a_steered_turn_has_a_second_line_and_counts_once(path: Path) -> None:
    model = ChatTransformers.from_engine(ScriptedVLM("Run."), temperature=0)
    guard = SafeCoDeGuard(model=model, judge=ScriptedJudge(0.9), sinks=[AuditLog(path)])
    reply = guard.invoke(ask())
    lines = [entry.verdict for entry in entries(path)]
    assert [line and (line.id, line.obeyed) for line in lines] == [
        (lines[0].id, None),  # type: ignore[union-attr]
        (lines[0].id, False),  # type: ignore[union-attr]
    ]
    assert lines[1] == Verdict.from_message(reply)
    found = statistics_of(path)
    assert (found["verdicts"], found["obeyed"]) == (1, {"no": 1})
    assert verify(path).sound


def test_a_place_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no folder"):
        AuditLog(tmp_path / "none" / "log.jsonl")
    with pytest.raises(AuditError, match="no audit log"):
        verify(tmp_path / "none.jsonl")
