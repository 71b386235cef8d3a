from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import pytest

from safecode_guard.errors import JudgeError, JudgeTimeout, TemplateError
from safecode_guard.judges.deadlines import Strays
from safecode_guard.judges.failsafe import arun_judge, run_judge, run_many
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.protocol import BaseJudge, JudgeAbilities, JudgeRequest
from safecode_guard.testing import Delay, ScriptedJudge, ScriptedVLM
from safecode_guard.verdict import Judgement

Make = Callable[..., JudgeRequest]
SECRET = "the user's private words"


class Returning(BaseJudge):
    """A judge that returns whatever it is given."""

    id = "returning"

    def __init__(self, value: Any) -> None:
        self.value = value

    def judge(self, request: JudgeRequest) -> Any:
        return self.value


def caused() -> JudgeError:
    error = JudgeError(SECRET)
    error.__cause__ = ConnectionError(SECRET)
    return error


ERRORS = [
    (JudgeError(SECRET), "JudgeError: the check failed"),
    (caused(), "JudgeError (from ConnectionError): the check failed"),
    (JudgeTimeout(SECRET), "JudgeTimeout: the judge did not answer before its deadline"),
    (TemplateError(SECRET), "TemplateError: the judging model could not be asked"),
    (KeyError(SECRET), "KeyError: the judge raised an unexpected error"),
]


@pytest.mark.parametrize(("error", "reason"), ERRORS)
async def test_errors_become_failed_judgements_without_content(
    error: Exception, reason: str, request_for: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    judge = ScriptedJudge(error)
    for found in (run_judge(judge, request_for()), await arun_judge(judge, request_for())):
        assert found.failed == reason
        assert (found.label, found.p_unsafe, found.parse_status) == (None, None, "not_run")
        assert (found.judge_id, found.prompt_version) == ("scripted", "scripted-1")
    assert SECRET not in caplog.text
    assert "JudgeError" in caplog.text or type(error).__name__ in caplog.text


@pytest.mark.parametrize("value", ["safe", None, True, {"p_unsafe": 0.1}, 0.1])
async def test_what_is_no_judgement_is_a_failed_check(value: object, request_for: Make) -> None:
    for found in (
        run_judge(Returning(value), request_for()),
        await arun_judge(Returning(value), request_for()),
    ):
        assert found.failed == "JudgeError: the check failed"
        assert found.label is None


def test_coroutine_of_a_wrongly_async_judge_is_a_failed_check(
    request_for: Make, recwarn: pytest.WarningsRecorder
) -> None:
    class Async(Returning):
        async def judge(self, request: JudgeRequest) -> Any:
            return self.value

    judge = Async(Judgement(judge_id="j", prompt_version="1", label="safe"))
    assert run_judge(judge, request_for()).failed
    assert not [w for w in recwarn if "never awaited" in str(w.message)]


@pytest.mark.parametrize(
    "update", [{}, {"p_unsafe": -0.3}, {"p_unsafe": float("nan")}, {"label": "safe", "p_unsafe": 1}]
)
async def test_finding_that_makes_no_sense_is_a_failed_check(
    update: dict[str, object], request_for: Make
) -> None:
    judge = Returning(Judgement(judge_id="j", prompt_version="1").model_copy(update=update))
    for found in (
        run_judge(judge, request_for()),
        await arun_judge(judge, request_for()),
        *run_many(judge, [request_for(), request_for()]),
    ):
        assert found.failed == "JudgeError: the check failed"
        assert (found.label, found.p_unsafe) == (None, None)


def test_failure_that_a_judge_reports_itself_is_kept(request_for: Make) -> None:
    own = Judgement(judge_id="j", prompt_version="1", failed="offline", label="safe")
    found = run_judge(Returning(own), request_for())
    assert (found.failed, found.label) == ("offline", None)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("timeout_s", [None, 5.0])
def test_interrupts_go_through(
    error: BaseException, timeout_s: float | None, request_for: Make
) -> None:
    def stop(request: JudgeRequest) -> float:
        raise error

    with pytest.raises(type(error)):
        run_judge(ScriptedJudge(stop), request_for(), timeout_s=timeout_s)


async def test_cancellation_goes_through(request_for: Make) -> None:
    task = asyncio.ensure_future(arun_judge(ScriptedJudge(Delay(5, 0.1)), request_for()))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("how", ["timeout", "deadline"])
async def test_slow_judge_is_given_up_in_time(how: str, request_for: Make) -> None:
    judge = ScriptedJudge(Delay(2.0, 0.1))

    def limits() -> tuple[JudgeRequest, float | None]:
        if how == "timeout":
            return request_for(), 0.05
        return request_for(deadline=time.monotonic() + 0.05), None

    for run in (run_judge, arun_judge):
        request, timeout_s = limits()
        started = time.monotonic()
        found = run(judge, request, timeout_s=timeout_s)
        judgement = found if isinstance(found, Judgement) else await found
        assert time.monotonic() - started < 1.0
        assert judgement.failed is not None
        assert "deadline" in judgement.failed
        assert 40 <= judgement.latency_ms < 1000


async def test_passed_deadline_asks_nobody(request_for: Make) -> None:
    judge = ScriptedJudge(0.1)
    late = request_for(deadline=time.monotonic() - 1)
    assert "JudgeTimeout" in (run_judge(judge, late).failed or "")
    assert "JudgeTimeout" in ((await arun_judge(judge, late)).failed or "")
    assert "JudgeTimeout" in (run_many(judge, [late, late])[1].failed or "")
    assert judge.requests == []


def test_judge_is_told_the_nearer_deadline(request_for: Make) -> None:
    judge = ScriptedJudge(0.1)
    far = time.monotonic() + 100
    run_judge(judge, request_for(deadline=far), timeout_s=10)
    run_judge(judge, request_for(deadline=far), timeout_s=1000)
    near, kept = (request.deadline for request in judge.requests)
    assert near is not None
    assert near < far - 80
    assert kept == far


def test_foreign_judge_with_a_deadline_sees_the_callers_context(request_for: Make) -> None:
    where: ContextVar[str] = ContextVar("where", default="nowhere")
    where.set("here")
    threads = []

    def answer(request: JudgeRequest) -> float:
        threads.append(threading.current_thread())
        return 0.9 if where.get() == "here" else 0.1

    judge = ScriptedJudge(answer)
    assert run_judge(judge, request_for(), timeout_s=5).p_unsafe == 0.9
    assert run_judge(judge, request_for()).p_unsafe == 0.9
    assert threads[0] is not threading.main_thread()
    assert threads[1] is threading.main_thread()


@pytest.mark.parametrize("honours", [True, False])
def test_judge_that_honours_deadlines_runs_in_the_callers_thread(
    honours: bool, request_for: Make
) -> None:
    threads = []

    def answer(request: JudgeRequest) -> float:
        threads.append(threading.current_thread())
        return 0.9

    judge = ScriptedJudge(answer, abilities=JudgeAbilities(honours_deadline=honours))
    assert run_judge(judge, request_for(), timeout_s=5).p_unsafe == 0.9
    assert (threads == [threading.main_thread()]) == honours


def test_judge_that_hangs_is_given_up_at_once_after_some_calls(request_for: Make) -> None:
    judge, strays = ScriptedJudge(Delay(0.5, 0.1)), Strays(2)

    def failure() -> str:
        return run_judge(judge, request_for(), timeout_s=0.02, strays=strays).failed or ""

    assert all("JudgeTimeout" in failure() for _ in range(5))
    assert len(judge.requests) == 2
    time.sleep(0.7)  # the threads have ended: it is asked again
    assert "JudgeTimeout" in failure()
    assert len(judge.requests) == 3


def test_batch_that_hangs_counts_as_one_call(request_for: Make) -> None:
    strays, batches = Strays(1), []

    def hang(requests: list[JudgeRequest]) -> list[Judgement]:
        batches.append(requests)
        return late_batch(requests)

    pair = [request_for("a"), request_for("b")]
    for _ in range(3):
        found = run_many(Batching(hang), pair, timeout_s=0.02, strays=strays)
        assert all("JudgeTimeout" in (judgement.failed or "") for judgement in found)
    assert len(batches) == 1


def test_latency_is_measured(request_for: Make) -> None:
    found = run_judge(ScriptedJudge(Delay(0.03, 0.1)), request_for())
    assert 25 <= found.latency_ms < 1000


def test_many_use_one_batch(request_for: Make) -> None:
    vlm = ScriptedVLM(p_unsafe=0.8)
    late = request_for(deadline=time.monotonic() - 1)
    found = run_many(LabelLogitsJudge(vlm), [request_for(), late, request_for()])
    assert [judgement.failed is None for judgement in found] == [True, False, True]
    assert [call[:2] for call in vlm.calls] == [("prefill", 2)]


def test_one_bad_request_does_not_fail_the_rest(request_for: Make) -> None:
    def fragile(scene: Any) -> float:
        if "bad" in scene.question:
            raise ValueError(SECRET)
        return 0.8

    judge = LabelLogitsJudge(ScriptedVLM(p_unsafe=fragile))
    found = run_many(judge, [request_for("one"), request_for("bad"), request_for("two")])
    assert [judgement.failed is None for judgement in found] == [True, False, True]
    assert SECRET not in (found[1].failed or "")


class Batching(ScriptedJudge):
    """A foreign batch judge with a scripted batch."""

    def __init__(self, batch: Callable[[list[JudgeRequest]], Any]) -> None:
        super().__init__(0.3, id="batching")
        self.batch = batch

    def judge_many(self, requests: list[JudgeRequest]) -> Any:
        return self.batch(requests)


def late_batch(requests: list[JudgeRequest]) -> list[Judgement]:
    time.sleep(2)
    return []


@pytest.mark.parametrize("batch", [lambda r: [], lambda r: None, lambda r: ["safe"] * len(r)])
def test_batch_of_the_wrong_shape_is_judged_one_by_one(
    batch: Callable[[list[JudgeRequest]], Any], request_for: Make
) -> None:
    found = run_many(Batching(batch), [request_for("a"), request_for("b")])
    assert [judgement.p_unsafe for judgement in found] == [0.3, 0.3]


def test_slow_batch_is_given_up_and_not_tried_again(request_for: Make) -> None:
    judge = Batching(late_batch)
    started = time.monotonic()
    found = run_many(judge, [request_for("a"), request_for("b")], timeout_s=0.05)
    assert time.monotonic() - started < 1
    assert all("JudgeTimeout" in (judgement.failed or "") for judgement in found)
    assert judge.requests == []


def test_no_requests_no_judgements(request_for: Make) -> None:
    assert run_many(ScriptedJudge(), []) == []
    assert run_many(LabelLogitsJudge(ScriptedVLM()), []) == []


def test_request_is_not_changed(request_for: Make) -> None:
    request = request_for()
    same = replace(request)
    run_judge(ScriptedJudge(), request, timeout_s=1)
    assert request == same
