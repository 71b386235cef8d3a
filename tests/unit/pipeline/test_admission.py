import asyncio
import threading
import time

import pytest

from safecode_guard.errors import Overloaded, TurnTimeout
from safecode_guard.pipeline.admission import Admission


def test_places_are_given_back_even_after_an_error():
    admission = Admission(active=1, waiting=0)
    for _ in range(3):
        with pytest.raises(KeyError), admission.enter():
            raise KeyError
    with admission.enter():
        pass


def test_too_many_waiting_is_refused_at_once():
    admission = Admission(active=1, waiting=0)
    with admission.enter(), pytest.raises(Overloaded), admission.enter():
        pytest.fail("entered")


def test_waiting_ends_at_the_deadline():
    admission = Admission(active=1, waiting=1)
    started = time.monotonic()
    with (
        admission.enter(),
        pytest.raises(TurnTimeout),
        admission.enter(deadline=started + 0.05),
    ):
        pytest.fail("entered")
    assert 0.04 < time.monotonic() - started < 2


def test_a_waiting_turn_enters_when_a_place_is_free():
    admission, entered = Admission(active=1, waiting=1), threading.Event()

    def wait():
        with admission.enter():
            entered.set()

    with admission.enter():
        thread = threading.Thread(target=wait)
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(2)
    thread.join()


async def test_tasks_and_threads_stand_in_one_queue():
    admission, order = Admission(active=1, waiting=3), []

    def in_a_thread():
        with admission.enter():
            order.append("thread")

    async def in_a_task():
        async with admission.aenter():
            order.append("task")

    async with admission.aenter():
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        await asyncio.sleep(0.05)
        task = asyncio.create_task(in_a_task())
        await asyncio.sleep(0.05)
        assert order == []
    await task
    thread.join(2)
    assert order == ["thread", "task"]


async def test_a_waiting_task_holds_no_thread_and_is_refused_when_the_queue_is_full():
    admission = Admission(active=1, waiting=200)
    before = threading.active_count()
    async with admission.aenter():

        async def wait():
            async with admission.aenter():
                return threading.active_count()

        tasks = [asyncio.create_task(wait()) for _ in range(200)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            async with admission.aenter():
                pytest.fail("entered")
    assert set(await asyncio.gather(*tasks)) == {before}


async def test_who_gives_up_waiting_leaves_no_place_taken():
    admission = Admission(active=1, waiting=2)
    async with admission.aenter():
        task = asyncio.create_task(admission.aenter().__aenter__())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TurnTimeout):
            async with admission.aenter(deadline=time.monotonic() + 0.02):
                pytest.fail("entered")
    with admission.enter(deadline=time.monotonic() + 0.02):
        pass
