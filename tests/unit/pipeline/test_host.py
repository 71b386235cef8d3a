"""Who runs a turn: a thread, or an event loop."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from safecode_guard.errors import TurnTimeout
from safecode_guard.judges.protocol import JudgeAbilities, JudgeRequest, OpenPrompt
from safecode_guard.models.protocol import Delta, Job
from safecode_guard.pipeline.admission import Admission
from safecode_guard.pipeline.host import EventLoop, ThisThread, drive, run
from safecode_guard.testing import Delay, ScriptedJudge, ScriptedVLM
from tests.unit.pipeline.serving import turn

variable: ContextVar[str] = ContextVar("variable", default="unset")


@pytest.fixture
def workers():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def requests(count: int) -> list[JudgeRequest]:
    return [JudgeRequest.of_turn(turn(f"Where is {i}?")) for i in range(count)]


class Deltas:
    """A session that answers in pieces, and notes who asks and who leaves."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.closed = False

    def answer(self, jobs):
        try:
            for text in ("Run ", "along."):
                self.threads.append(threading.get_ident())
                yield Delta(0, text)
        finally:
            self.closed = True

    def close(self) -> None:
        """Hold nothing."""


class AsyncDeltas(Deltas):
    def ask(self, questions):
        raise NotImplementedError

    async def aanswer(self, jobs):
        for text in ("On ", "the loop."):
            self.threads.append(threading.get_ident())
            yield Delta(0, text)


async def texts(host, session, *, live: bool = False) -> list[str]:
    return [delta.text async for delta in host.answer(session, [Job(0, turn(), live=live)])]


# -- a thread --------------------------------------------------------------------------------


def test_in_a_thread_everything_happens_there_at_once():
    host, here, session = ThisThread(), threading.get_ident(), Deltas()
    assert run(host.call(threading.get_ident)) == here
    assert run(texts(host, session)) == ["Run ", "along."]
    assert set(session.threads) == {here}
    (judgement,) = run(host.judge(ScriptedJudge(0.9), requests(1), timeout_s=None))
    assert judgement.p_unsafe == 0.9


def test_a_thread_waits_for_a_place_and_gives_it_back():
    host, admission = ThisThread(), Admission(active=1, waiting=1)

    async def placed(deadline=None):
        async with host.place(admission, deadline):
            return "in"

    assert [run(placed()), run(placed())] == ["in", "in"]
    with admission.enter(), pytest.raises(TurnTimeout):
        run(placed(time.monotonic() + 0.02))


def test_a_coroutine_that_suspends_is_a_mistake_of_ours():
    with pytest.raises(RuntimeError, match="event loop"):
        run(asyncio.sleep(1))


def test_drive_iterates_closes_and_raises():
    closed = []

    async def events(broken=False):
        try:
            yield 1
            if broken:
                raise KeyError("broken")
            yield 2
        finally:
            closed.append(True)

    assert list(drive(events())) == [1, 2]
    left = drive(events())
    next(left)
    left.close()
    with pytest.raises(KeyError):
        list(drive(events(broken=True)))
    assert closed == [True] * 3


# -- an event loop ---------------------------------------------------------------------------


async def test_on_a_loop_what_blocks_goes_to_a_worker_with_the_callers_context(workers):
    variable.set("the caller's")
    thread, seen = await EventLoop(workers).call(lambda: (threading.get_ident(), variable.get()))
    assert thread != threading.get_ident()
    assert seen == "the caller's"


async def test_a_workers_error_is_the_callers(workers):
    def broken():
        raise KeyError("broken")

    with pytest.raises(KeyError):
        await EventLoop(workers).call(broken)


async def test_a_cancelled_task_waits_for_its_thread_and_tells_it_to_stop(workers):
    cancelled, begun, ended = threading.Event(), threading.Event(), threading.Event()

    def work():
        begun.set()
        cancelled.wait(5)
        time.sleep(0.05)
        ended.set()

    task = asyncio.create_task(EventLoop(workers, cancelled).call(work))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_work_that_has_not_begun_is_not_waited_for(workers):
    held = threading.Event()
    for _ in range(2):
        workers.submit(held.wait, 5)
    ran = []
    task = asyncio.create_task(EventLoop(workers).call(lambda: ran.append(True)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.set()
    assert ran == []


async def test_requests_to_a_remote_judge_wait_side_by_side(workers):
    started = time.monotonic()
    judge = ScriptedJudge(Delay(0.1, 0.9))
    judgements = await EventLoop(workers).judge(judge, requests(8), timeout_s=None)
    assert [judgement.p_unsafe for judgement in judgements] == [0.9] * 8
    assert time.monotonic() - started < 0.6


@pytest.mark.parametrize("how", ["batches", "prompt"])
async def test_a_judge_that_runs_in_this_process_goes_to_a_worker(workers, how):
    class Here(ScriptedJudge):
        def judge(self, request):
            threads.append(threading.get_ident())
            return super().judge(request)

        async def ajudge(self, request):
            raise AssertionError("on the loop")

    threads: list[int] = []
    judge = Here(0.9, abilities=JudgeAbilities(batches=how == "batches"))
    (request,) = requests(1)
    if how == "prompt":
        vlm = ScriptedVLM()
        prompt = OpenPrompt(vlm, vlm.open([turn()], None), 0)
        request = JudgeRequest("input", request.scene, prompt=prompt)
    (judgement,) = await EventLoop(workers).judge(judge, [request], timeout_s=None)
    assert judgement.p_unsafe == 0.9
    assert threading.get_ident() not in threads


async def test_a_judge_that_is_late_is_cancelled(workers):
    started = time.monotonic()
    judge = ScriptedJudge(Delay(5, 0.1))
    (judgement,) = await EventLoop(workers).judge(judge, requests(1), timeout_s=0.05)
    assert "deadline" in judgement.failed
    assert time.monotonic() - started < 1


async def test_a_session_answers_in_a_worker_piece_by_piece_or_in_one_go(workers):
    for live in (False, True):
        session = Deltas()
        assert await texts(EventLoop(workers), session, live=live) == ["Run ", "along."]
        assert threading.get_ident() not in session.threads
        assert session.closed


async def test_an_async_session_answers_on_the_loop(workers):
    session = AsyncDeltas()
    assert await texts(EventLoop(workers), session, live=True) == ["On ", "the loop."]
    assert set(session.threads) == {threading.get_ident()}


async def test_an_answer_that_is_left_is_closed(workers):
    session = Deltas()
    answer = EventLoop(workers).answer(session, [Job(0, turn(), live=True)])
    await anext(answer)
    await answer.aclose()
    assert session.closed


async def test_waiting_for_a_place_holds_no_worker(workers):
    host, admission = EventLoop(workers), Admission(active=1, waiting=9)

    async def placed():
        async with host.place(admission, None):
            return await host.call(lambda: "in")

    async with host.place(admission, None):
        tasks = [asyncio.create_task(placed()) for _ in range(9)]
        await asyncio.sleep(0.01)
        assert await host.call(lambda: "free") == "free"
    assert await asyncio.gather(*tasks) == ["in"] * 9
