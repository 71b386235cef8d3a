from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from safecode_guard import ChatTransformers, SafeCoDeCheck, SafeCoDeGuard
from safecode_guard.judges.health import LEAST, RECENT, WINDOW, JudgeHealth
from safecode_guard.judges.protocol import JudgeRequest
from safecode_guard.taxonomy import Label
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from safecode_guard.verdict import Judgement
from tests.messages import ask

Make = Callable[..., JudgeRequest]


def found(label: Label | None, latency_ms: float = 1.0, *, unread: bool = False) -> Judgement:
    return Judgement(
        judge_id="j",
        prompt_version="1",
        label=label,
        failed="down" if label is None else None,
        parse_status="malformed" if unread else "parsed",
        latency_ms=latency_ms,
    )


def after(labels: Sequence[Label | None]) -> JudgeHealth:
    health = JudgeHealth("j")
    for label in labels:
        health.note(found(label), label)
    return health


def test_shares_are_those_of_what_was_seen() -> None:
    health = JudgeHealth("j")
    for label, latency in (("safe", 1.0), ("safe", 2.0), ("unsafe", 3.0), ("undecided", 100.0)):
        health.note(found(label, latency), label)  # type: ignore[arg-type]
    health.note(found(None, unread=True), None)
    report = health.report()
    assert (report.asked, report.failed, report.unread) == (5, 0.2, 0.2)
    assert (report.unsafe, report.undecided) == (0.25, 0.25)
    assert report.latency_ms == (2.0, 100.0, 100.0)
    assert (report.problems, report.health) == ((), "ok")


def test_a_judge_that_fails_often_is_degraded_until_it_recovers() -> None:
    health = after(["safe"] * 20)
    assert health.health == "ok"
    for _ in range(8):
        health.note(found(None), None)
    assert health.health == "degraded"
    assert health.report().problems == ("29% of its last 28 checks failed",)
    for _ in range(RECENT):
        health.note(found("safe"), "safe")
    assert health.health == "ok"


def test_a_few_failures_at_the_start_say_nothing() -> None:
    assert after([None] * (LEAST - 1)).health == "ok"
    assert after([None] * LEAST).health == "degraded"


@pytest.mark.parametrize(("before", "now"), [("safe", "unsafe"), ("unsafe", "safe")])
def test_verdicts_that_shift_are_told(before: Label, now: Label) -> None:
    mixed: list[Label | None] = [before, before, before, now] * 50
    steady = after(mixed)
    assert steady.health == "ok"
    for _ in range(RECENT):
        steady.note(found(now), now)
    assert steady.health == "degraded"
    assert "found" in steady.report().problems[0]


def test_the_window_forgets() -> None:
    health = after([None] * 30 + ["safe"] * WINDOW)
    assert health.report().failed == 0
    assert health.report().asked == WINDOW


def test_it_serves_threads() -> None:
    health = JudgeHealth("j")

    def work() -> None:
        for _ in range(100):
            health.note(found("safe"), "safe")
            health.report()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert health.report().asked == 400


def test_every_verdict_says_how_its_judge_is_doing() -> None:
    judge = ScriptedJudge([0.1] * 5 + [ValueError()] * 8 + [0.1])
    check = SafeCoDeCheck(judge=judge)
    verdicts = [check.check(ask(str(n))) for n in range(14)]
    healths = [v.judge.health for v in verdicts if v.judge]
    assert healths[:5] == ["ok"] * 5
    assert healths[-1] == "degraded"
    assert verdicts[-1].label == "safe"
    (report,) = check.examiner.health()
    assert (report.judge_id, report.asked) == (judge.id, 14)
    assert report.failed == pytest.approx(8 / 14)


def test_judgements_from_the_cache_are_no_news() -> None:
    judge = ScriptedJudge(0.1)
    check = SafeCoDeCheck(judge=judge)
    for _ in range(3):
        check.check(ask("the same"))
    (report,) = check.examiner.health()
    assert report.asked == 1


def test_steered_answers_are_told_by_whether_they_obeyed() -> None:
    judge = ScriptedJudge([0.9, 0.9, 0.1, 0.5])
    model = ChatTransformers.from_engine(ScriptedVLM("Run along."), temperature=0)
    guard = SafeCoDeGuard(model=model, judge=judge)
    assert guard.examiner.health() == ()
    for number in range(4):
        guard.invoke(ask(str(number)))
    (report,) = guard.examiner.health()
    assert report.obeyed == pytest.approx(1 / 3)  # unsafe twice, safe once; undecided tells nothing
    assert report.health == "ok"
