"""LangChain's calls onto the guarded turn: each carries its one verdict, before any text."""

import asyncio
import threading
import time
from uuid import uuid4

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda

from safecode_guard.errors import Overloaded
from safecode_guard.policy import Policy
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.testing import Delay, EventRecorder, ScriptedJudge
from safecode_guard.verdict import Verdict
from tests.messages import ask
from tests.unit.runnables.guards import (
    HELP,
    LONG,
    REFUSAL,
    Slow,
    by_request,
    guarded,
    judged_only,
    merged,
    model,
)

BLOCKING = Policy(actions={"unsafe": "block"})


@pytest.fixture
def recorder() -> EventRecorder:
    return EventRecorder()


def check_reply(reply, recorder) -> None:
    assert reply.text == HELP
    assert [v.action for v in Verdict.all_from_message(reply)] == ["guide"]
    (verdict,) = Verdict.all_from_message(reply)
    assert verdict.obeyed
    assert [told.id for told in recorder.verdicts] == [verdict.id]
    assert recorder.closed == [verdict]
    assert {str(event.run_id) for event in recorder.events} == {verdict.run_id}


# -- every call carries the verdict ----------------------------------------------------------


def test_invoke(recorder):
    check_reply(guarded().invoke(ask(), {"callbacks": [recorder]}), recorder)


async def test_ainvoke(recorder):
    check_reply(await guarded().ainvoke(ask(), {"callbacks": [recorder]}), recorder)


def test_generate(recorder):
    (generations,) = guarded().generate([ask()], callbacks=[recorder]).generations
    check_reply(generations[0].message, recorder)


async def test_agenerate(recorder):
    result = await guarded().agenerate([ask()], callbacks=[recorder])
    check_reply(result.generations[0][0].message, recorder)


def test_stream(recorder):
    chunks = list(guarded().stream(ask(), {"callbacks": [recorder]}))
    check_reply(merged(chunks), recorder)
    assert places(chunks) == [0]
    assert chunks[-1].chunk_position == "last"
    assert len(chunks) > 3


async def test_astream(recorder):
    chunks = [c async for c in guarded().astream(ask(), {"callbacks": [recorder]})]
    check_reply(merged(chunks), recorder)
    assert places(chunks) == [0]
    assert len(chunks) > 3


class Tokens(EventRecorder):
    """A handler for which LangChain makes answers as streams."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[str] = []

    def on_llm_new_token(self, token, **kwargs):
        self.tokens.append(token)


@pytest.mark.parametrize("fields", [{}, {"policy": Policy(mode="judge_only")}])
def test_an_invoke_that_streams_inside_tells_its_verdict_on_its_own_run(fields):
    guard, tokens = guarded(streaming=True, **fields), Tokens()
    reply = guard.invoke(ask(), {"callbacks": [tokens]})
    (verdict,) = Verdict.all_from_message(reply)
    assert "".join(tokens.tokens) == reply.text == HELP
    assert [told.id for told in tokens.verdicts] == [verdict.id]
    assert tokens.closed == ([verdict] if verdict.closed else [])
    assert verdict.run_id == str(tokens.events[0].run_id)


async def test_an_ainvoke_inside_a_streamed_chain_does_too():
    async def call(messages):
        return await guarded().ainvoke(messages)

    events = [e async for e in RunnableLambda(call).astream_events(ask(), version="v2")]
    (start,) = [e for e in events if e["event"] == "on_chat_model_start"]
    (verdict,) = [v for e in events if (v := Verdict.from_event(e))]
    assert [e["event"] for e in events].count("on_chat_model_stream") > 3
    assert verdict.run_id == start["run_id"]


def test_a_run_id_of_the_callers_own_is_kept():
    recorder, known = EventRecorder(), uuid4()
    reply = guarded().invoke(ask(), {"callbacks": [recorder], "run_id": known})
    assert Verdict.from_message(reply).run_id == str(known)
    assert recorder.events[0].run_id == known


async def test_all_calls_give_one_answer():
    guard = guarded(0.9, model=model({HELP: 0.3, REFUSAL: 0.0}))
    texts = [
        guard.invoke(ask()).text,
        merged(list(guard.stream(ask()))).text,
        guard.batch([ask()])[0].text,
        (await guard.ainvoke(ask())).text,
        merged([chunk async for chunk in guard.astream(ask())]).text,
        (await guard.abatch([ask()]))[0].text,
    ]
    assert texts == [REFUSAL] * 6


def test_a_plain_model_streams_without_verdicts():
    chunks = list(model().stream(ask()))
    assert merged(chunks).text == HELP
    assert not any(Verdict.all_from_message(chunk) for chunk in chunks)


def test_fallbacks(recorder):
    guard = guarded().with_fallbacks([FakeListChatModel(responses=["fallback"])])
    check_reply(guard.invoke(ask(), {"callbacks": [recorder]}), recorder)
    raising = guarded(policy=Policy(actions={"safe": "block"}, on_block="raise"))
    fallback = raising.with_fallbacks([FakeListChatModel(responses=["fallback"])])
    assert fallback.invoke(ask()).text == "fallback"


# -- nothing leaves before the verdict -------------------------------------------------------


class Watch(EventRecorder):
    """Notes the order of verdicts and tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def on_custom_event(self, name, data, **kwargs):
        self.order.append("verdict")

    def on_llm_new_token(self, token, **kwargs):
        if token:
            self.order.append("token")


def slowly_judged(**options) -> SafeCoDeGuard:
    return guarded(judge=ScriptedJudge(Delay(0.05, 0.1)), **options)


def test_no_token_before_the_verdict_in_stream():
    watch = Watch()
    chunks = list(slowly_judged().stream(ask(), {"callbacks": [watch]}))
    assert watch.order[0] == "verdict"
    assert "token" in watch.order
    assert not chunks[0].text
    assert Verdict.from_message(chunks[0])


async def test_no_token_before_the_verdict_in_astream():
    watch = Watch()
    chunks = [c async for c in slowly_judged().astream(ask(), {"callbacks": [watch]})]
    assert watch.order[0] == "verdict"
    assert not chunks[0].text
    assert Verdict.from_message(chunks[0])


async def test_no_token_before_the_verdict_in_events():
    kinds = []
    async for event in slowly_judged().astream_events(ask(), version="v2"):
        if event["event"] == "on_custom_event":
            kinds.append("verdict")
        elif event["event"] == "on_chat_model_stream" and event["data"]["chunk"].text:
            kinds.append("token")
    assert kinds[0] == "verdict"
    assert kinds.count("token") > 3


def test_no_token_before_the_verdict_in_a_chain_that_streams():
    watch = Watch()
    chain = RunnableLambda(lambda x: x) | slowly_judged() | StrOutputParser()
    assert "".join(chain.stream(ask(), {"callbacks": [watch]})) == HELP
    assert watch.order[0] == "verdict"


def test_a_blocked_stream_holds_only_the_refusal():
    whole = merged(list(guarded(0.99, policy=BLOCKING).stream(ask())))
    assert whole.text == BLOCKING.refusal_text
    assert whole.response_metadata["finish_reason"] == "content_filter"
    assert Verdict.from_message(whole).action == "block"


async def test_judge_tokens_do_not_leak_into_the_stream():
    guard = SafeCoDeGuard(model=model(), judge=FakeListChatModel(responses=["unsafe"]))
    texts = []
    async for event in guard.astream_events(ask(), version="v2"):
        if event["event"] == "on_chat_model_stream":
            texts.append(event["data"]["chunk"].text)
    assert texts
    assert "unsafe" not in "".join(texts)


# -- callers that go -------------------------------------------------------------------------


def test_a_closed_stream_stops_decoding():
    inner = model(LONG)
    stream = guarded(model=inner).stream(ask())
    for _, _ in zip(range(3), stream, strict=False):
        pass
    stream.close()
    assert len(inner.engine.calls) < 60
    assert guarded(model=inner).invoke(ask()).text.startswith("a long")


async def decoding(slow: Slow) -> None:
    while len(slow.calls) < 5:
        await asyncio.sleep(0.01)


async def stands_still(slow: Slow) -> None:
    done = len(slow.calls)
    await asyncio.sleep(0.3)
    assert len(slow.calls) <= done + 2


async def test_a_cancelled_call_stops_decoding():
    slow = Slow(LONG)
    guard = guarded(model=ChatTransformers.from_engine(slow, temperature=0, max_active=1))
    task = asyncio.create_task(guard.ainvoke(ask()))
    await decoding(slow)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await stands_still(slow)
    assert (await guard.ainvoke(ask(), max_tokens=6)).text  # its place was given back


async def test_a_left_async_stream_stops_decoding():
    slow = Slow(LONG)
    guard = guarded(model=ChatTransformers.from_engine(slow, temperature=0, max_active=1))
    stream = guard.astream(ask())
    async for chunk in stream:
        if chunk.text:
            break
    await stream.aclose()
    await stands_still(slow)
    assert (await guard.ainvoke(ask(), max_tokens=6)).text


# -- many callers ----------------------------------------------------------------------------


def test_one_guard_serves_threads():
    guard = guarded(by_request, model=model({HELP: 0.3, REFUSAL: 0.0}))
    replies: dict[int, str] = {}

    def call(i: int) -> None:
        replies[i] = guard.invoke(ask("The cliff?" if i % 2 else "The park?")).text

    threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [replies[i] for i in range(8)] == [HELP, REFUSAL] * 4


async def test_more_calls_than_workers_wait_without_blocking_the_loop():
    guard, ticks = guarded(judge=ScriptedJudge(Delay(0.1, 0.1)), model=model(max_active=1)), 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    replies = await asyncio.gather(*(guard.ainvoke(ask(f"Where is {i}?")) for i in range(24)))
    ticking.cancel()
    assert {reply.text for reply in replies} == {HELP}
    assert ticks > 10


async def test_too_many_waiting_callers_are_refused():
    slow = Slow(LONG)
    inner = ChatTransformers.from_engine(slow, temperature=0, max_active=1, max_waiting=1)
    tasks = [asyncio.create_task(inner.ainvoke(ask())) for _ in range(2)]
    await decoding(slow)
    with pytest.raises(Overloaded, match="max_waiting"):
        await inner.ainvoke(ask())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_judge_holds_no_place_on_the_model_while_it_thinks():
    inner = model(max_active=1, max_waiting=0)
    guard = guarded(judge=ScriptedJudge(Delay(0.2, 0.95)), model=inner, policy=BLOCKING)
    started = time.monotonic()
    replies = await asyncio.gather(*(guard.ainvoke(ask(f"{i}?")) for i in range(5)))
    assert {reply.text for reply in replies} == {BLOCKING.refusal_text}
    assert time.monotonic() - started < 0.9


# -- models that are only called -------------------------------------------------------------


async def test_async_calls_of_a_model_that_is_only_judged():
    assert (await judged_only(0.1).ainvoke(ask())).text == HELP
    assert (await judged_only(0.9).ainvoke(ask())).text == Policy().refusal_text
    chunks = [chunk async for chunk in judged_only(0.1).astream(ask())]
    assert merged(chunks).text == HELP
    assert Verdict.from_message(chunks[0]).action == "pass"
    assert not chunks[0].text


@pytest.mark.parametrize("call", ["invoke", "stream"])
@pytest.mark.parametrize("p", [0.1, 0.9])
def test_each_verdict_of_a_model_that_is_only_judged_is_told_once(call, p, recorder):
    judge = ScriptedJudge(p)
    result = getattr(judged_only(judge), call)(ask(), {"callbacks": [recorder]})
    message = merged(list(result)) if call == "stream" else result
    assert len(recorder.verdicts) == len(judge.requests) == 1
    (verdict,) = Verdict.all_from_message(message)
    assert verdict == recorder.verdicts[0]
    assert verdict.run_id == str(recorder.events[0].run_id)


# -- obeyed or not ---------------------------------------------------------------------------

STUBBORN = {HELP: 3.0, REFUSAL: 0.0}


def places(chunks) -> list[int]:
    """The places of the chunks that carry a verdict."""
    return [i for i, chunk in enumerate(chunks) if Verdict.all_from_message(chunk)]


def test_a_live_stream_has_the_verdict_on_one_chunk_and_what_became_of_it_on_the_last():
    chunks = list(guarded(0.9).stream(ask()))
    assert places(chunks) == [0]
    (first,) = Verdict.all_from_message(chunks[0])
    (closing,) = chunks[-1].response_metadata["safecode_closed"]
    assert closing == {"id": first.id, "obeyed": False, "followed_by": None}
    (whole,) = Verdict.all_from_message(merged(chunks))
    assert whole == first.model_copy(update={"obeyed": False})


@pytest.mark.parametrize(
    ("follows", "text", "obeyed"),
    [("retry", REFUSAL, True), ("replace", Policy().refusal_text, False), ("rail", HELP, False)],
)
def test_every_way_of_calling_gives_what_follows(follows, text, obeyed):
    def judged(request):
        return 0.1 if request.stage == "output" else 0.9

    def guard():
        return guarded(
            judge=ScriptedJudge(judged),
            model=model(STUBBORN),
            policy=Policy(on_disobeyed=follows),
        )

    async def collected():
        return [chunk async for chunk in guard().astream(ask())]

    streams = [list(guard().stream(ask())), asyncio.run(collected())]
    replies = [guard().invoke(ask()), asyncio.run(guard().ainvoke(ask()))]
    replies += [*guard().batch([ask(), ask()]), *asyncio.run(guard().abatch([ask(), ask()]))]
    replies += [merged(chunks) for chunks in streams]
    for reply in replies:
        verdict = Verdict.from_message(reply, stage="input")
        assert (reply.text, verdict.obeyed, verdict.followed_by) == (text, obeyed, follows)
    for chunks in streams:
        assert places(chunks) == [0]
        assert len([chunk for chunk in chunks if chunk.text]) == 1


def test_what_is_not_steered_still_streams_where_other_answers_are_held():
    chunks = list(guarded(0.5, policy=Policy(on_disobeyed="retry")).stream(ask()))
    assert len([chunk for chunk in chunks if chunk.text]) > 3
