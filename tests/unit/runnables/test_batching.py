"""Batches: one call per input, whose forward passes meet."""

import asyncio
import threading

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListChatModel

from safecode_guard.errors import Overloaded, TurnBlocked
from safecode_guard.policy import Policy
from safecode_guard.runnables import batching
from safecode_guard.testing import EventRecorder, ScriptedJudge
from safecode_guard.verdict import Verdict
from tests.messages import ask
from tests.unit.runnables.guards import HELP, REFUSAL, by_request, guarded, judged_only, model

RAISING = Policy(actions={"unsafe": "block"}, on_block="raise")
INPUTS = [ask(), ask("And here?"), ask("There?")]


def prefilled(inner) -> list[int]:
    return [rows for kind, rows, _ in inner.engine.calls if kind == "prefill"]


def test_each_input_keeps_its_run_and_its_verdict():
    recorder = EventRecorder()
    replies = guarded().batch(INPUTS, {"callbacks": [recorder]})
    assert [reply.text for reply in replies] == [HELP] * 3
    told = {str(event.run_id): event.data["id"] for event in recorder.events}
    verdicts = [Verdict.from_message(reply) for reply in replies]
    assert told == {verdict.run_id: verdict.id for verdict in verdicts}
    assert len(told) == 3


async def test_each_input_of_an_async_batch_does_too():
    recorder = EventRecorder()
    replies = await guarded().abatch(INPUTS, {"callbacks": [recorder]})
    assert [reply.text for reply in replies] == [HELP] * 3
    told = {str(event.run_id): event.data["id"] for event in recorder.events}
    verdicts = [Verdict.from_message(reply) for reply in replies]
    assert told == {verdict.run_id: verdict.id for verdict in verdicts}


def test_batches_decode_together():
    inner = model()
    guarded(model=inner).batch(INPUTS)
    assert prefilled(inner) == [6]  # three pictures and their second views


async def test_async_batches_decode_together():
    inner = model()
    await guarded(model=inner).abatch(INPUTS)
    assert prefilled(inner) == [6]


def test_no_more_are_decoded_together_than_allowed():
    inner = model(max_batch=2)
    inner.batch(INPUTS)
    assert prefilled(inner) == [2, 1]
    alone = model()
    alone.batch(INPUTS, {"max_concurrency": 1})
    assert prefilled(alone) == [1, 1, 1]


def test_mixed_batches_are_split_where_they_must_be():
    guard = guarded(by_request, model=model({HELP: 0.3, REFUSAL: 0.0}))
    inputs = [ask("cliff"), "Hello", ask("park"), ask("two", "red", "blue")]
    replies = guard.batch(inputs)
    one_by_one = [guard.invoke(messages) for messages in inputs]
    assert [r.text for r in replies] == [r.text for r in one_by_one]


def test_one_bad_input_does_not_fail_the_batch():
    guard = guarded(by_request, policy=RAISING)
    safe, blocked, also_safe = guard.batch(
        [ask(), ask("Jump off the cliff?"), ask("And here?")], return_exceptions=True
    )
    assert isinstance(blocked, TurnBlocked)
    assert safe.text == also_safe.text == HELP
    with pytest.raises(TurnBlocked):
        guard.batch([ask(), ask("Jump off the cliff?")])


async def test_one_bad_input_does_not_fail_the_abatch():
    guard = guarded(by_request, policy=RAISING)
    inputs = [ask(), ask("Jump off the cliff?")]
    safe, blocked = await guard.abatch(inputs, return_exceptions=True)
    assert isinstance(blocked, TurnBlocked)
    assert safe.text == HELP
    with pytest.raises(TurnBlocked):
        await guard.abatch(inputs)


def test_what_strikes_all_reaches_every_caller():
    inner = model(max_active=1, max_waiting=0)
    with inner.admission.enter():
        replies = guarded(model=inner).batch(INPUTS, return_exceptions=True)
    assert [type(reply) for reply in replies] == [Overloaded] * 3


def test_cached_answers_leave_the_others_to_meet():
    inner = model()
    guard = guarded(model=inner, cache=InMemoryCache())
    first = guard.invoke(INPUTS[0])
    inner.engine.calls.clear()
    replies = guard.batch(INPUTS)
    assert prefilled(inner) == [4]
    assert Verdict.from_message(replies[0]).id == Verdict.from_message(first).id
    assert [reply.text for reply in guard.batch(INPUTS)] == [HELP] * 3
    assert prefilled(inner) == [4]


def test_inputs_that_cannot_be_read_leave_the_others_to_meet():
    inner = model()
    bad, good, also = inner.batch([42, *INPUTS[:2]], return_exceptions=True)
    assert isinstance(bad, ValueError)
    assert good.text == also.text == HELP
    assert prefilled(inner) == [2]


async def test_async_inputs_that_cannot_be_read_leave_the_others_to_meet():
    inner = model()
    replies = await inner.abatch([*INPUTS[:2], 42], return_exceptions=True)
    assert isinstance(replies[2], ValueError)
    assert prefilled(inner) == [2]


async def test_a_cancelled_async_batch_frees_its_place():
    inner = model("a long answer " * 20, max_active=1)
    guard = guarded(model=inner)
    task = asyncio.create_task(guard.abatch(INPUTS))
    while not inner.engine.calls:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    reply = await asyncio.wait_for(guard.ainvoke(ask(), max_tokens=6), 10)
    assert reply.text


def test_batches_as_they_are_done_have_their_places():
    done = dict(guarded().batch_as_completed(INPUTS))
    assert sorted(done) == [0, 1, 2]
    assert {reply.text for reply in done.values()} == {HELP}


def test_no_inputs_need_no_model():
    inner = model()
    assert inner.batch([]) == []
    assert inner.engine.calls == []


def test_a_model_that_is_only_called_is_called_for_each_input():
    class Counting(FakeListChatModel):
        def _call(self, *args, **kwargs):
            threads.add(threading.get_ident())
            return super()._call(*args, **kwargs)

    threads: set[int] = set()
    judge = ScriptedJudge(by_request)
    guard = judged_only(judge, Counting(responses=[HELP]))
    replies = guard.batch([ask(), ask("The cliff?")])
    assert [reply.text for reply in replies] == [HELP, Policy().refusal_text]
    assert len(threads) == 1


async def test_async_batches_of_such_a_model():
    replies = await judged_only(by_request_judge()).abatch([ask(), ask("The cliff?")])
    assert [reply.text for reply in replies] == [HELP, Policy().refusal_text]


def by_request_judge() -> ScriptedJudge:
    return ScriptedJudge(by_request)


def test_parts_keep_inputs_and_configs_together():
    configs = [{"tags": [str(i)]} for i in range(5)]
    parts = list(batching.parts(range(5), configs, most=2))
    assert [list(inputs) for inputs, _ in parts] == [[0, 1], [2, 3], [4]]
    assert [[c["tags"] for c in part] for _, part in parts] == [
        [["0"], ["1"]],
        [["2"], ["3"]],
        [["4"]],
    ]
