"""Which run a call belongs to, and where its verdicts are told."""

from contextvars import ContextVar
from threading import Thread
from uuid import uuid4

import pytest
from langchain_core.callbacks import CallbackManager
from langchain_core.runnables import RunnableLambda

from safecode_guard.runnables.events import current_run
from safecode_guard.runnables.runs import ain_run, in_run, in_this_context, remembered, run_of
from safecode_guard.testing import EventRecorder
from safecode_guard.verdict import PolicyRef, Verdict

VERDICT = Verdict(label="safe", action="pass", policy=PolicyRef(name="t", digest="0"))


def manager(recorder: EventRecorder):
    (made,) = CallbackManager([recorder]).on_chat_model_start({}, [[]])
    return made


def test_a_run_manager_says_which_run_it_is():
    recorder = EventRecorder()
    given = manager(recorder)
    run = run_of(given)
    run.tell(VERDICT)
    assert run.id == str(given.run_id)
    assert [event.run_id for event in recorder.events] == [given.run_id]
    assert recorder.verdicts == [VERDICT]


def test_a_remembered_run_stands_in_for_a_manager():
    recorder, run_id = EventRecorder(), uuid4()
    token = current_run.set((CallbackManager([recorder]), run_id))
    try:
        run = run_of(None)
    finally:
        current_run.reset(token)
    run.tell(VERDICT)  # as it was when the call came, whoever tells it
    assert run.id == str(run_id)
    assert [event.run_id for event in recorder.events] == [run_id]


def test_inside_a_chain_it_is_the_chains_run():
    recorder = EventRecorder()

    def told(_):
        run = run_of(None)
        run.tell(VERDICT)
        return run.id

    run_id = RunnableLambda(told).invoke("x", {"callbacks": [recorder]})
    assert [str(event.run_id) for event in recorder.events] == [run_id]


def test_outside_of_any_run_there_is_nobody_to_tell():
    run = run_of(None)
    run.tell(VERDICT)
    assert run.id is None


def test_a_function_keeps_the_context_of_where_it_was_bound():
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    variable.set("bound")
    bound, seen = in_this_context(lambda: seen.append(variable.get())), []
    variable.set("later")
    for _ in range(2):
        thread = Thread(target=bound)
        thread.start()
        thread.join()
    assert seen == ["bound", "bound"]


def test_a_stream_is_given_a_run_id_and_keeps_one_that_it_has():
    config, (_, run_id) = remembered({"callbacks": [EventRecorder()]})
    assert config["run_id"] == run_id
    known = uuid4()
    config, (callbacks, run_id) = remembered({"run_id": known, "callbacks": [EventRecorder()]})
    assert config["run_id"] == run_id == known
    assert len(callbacks.handlers) == 1


def test_chunks_are_made_inside_the_run_and_handed_out_outside_of_it():
    run, made = ("manager", uuid4()), []

    def chunks():
        for i in range(2):
            made.append(current_run.get())
            yield i

    for _ in in_run(chunks(), run):
        assert current_run.get() is None
    assert made == [run, run]


def test_a_stream_that_is_left_closes_what_it_streams():
    closed = []

    def chunks():
        try:
            yield 1
            yield 2
        finally:
            closed.append(current_run.get())

    stream = in_run(chunks(), ("manager", uuid4()))
    next(stream)
    stream.close()
    assert len(closed) == 1
    assert current_run.get() is None


async def test_async_chunks_are_made_inside_the_run_too():
    run, made, closed = ("manager", uuid4()), [], []

    async def chunks():
        try:
            for i in range(3):
                made.append(current_run.get())
                yield i
        finally:
            closed.append(True)

    stream = ain_run(chunks(), run)
    async for i in stream:
        assert current_run.get() is None
        if i:
            break
    await stream.aclose()
    assert made == [run, run]
    assert closed == [True]


def test_an_error_of_the_stream_goes_through_and_leaves_no_run_behind():
    def chunks():
        yield 1
        raise KeyError("broken")

    with pytest.raises(KeyError):
        list(in_run(chunks(), ("manager", uuid4())))
    assert current_run.get() is None
