"""The guard on every path that LangChain offers, over a scripted model."""

import asyncio
import threading
import time
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableBranch, RunnableLambda

from safecode_guard.errors import (
    JudgeError,
    LogitsUnavailable,
    PolicyError,
    TurnBlocked,
    TurnTimeout,
    UnsupportedGeneration,
)
from safecode_guard.policy import Policy
from safecode_guard.runnables.branching import is_action, route_by_action
from safecode_guard.runnables.events import AsyncVerdictHandler, VerdictHandler
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.testing import EventRecorder, ScriptedJudge, ScriptedVLM
from safecode_guard.verdict import EVENT_NAME, Verdict
from tests.messages import QUERY, ask, image_block, text_block

HELP = "Run along the edge."
REFUSAL = "I can't help with that."


def model(replies: Any = HELP, **options: Any) -> ChatTransformers:
    fields = {k: options.pop(k) for k in ("max_active", "max_waiting", "cache") if k in options}
    return ChatTransformers.from_engine(ScriptedVLM(replies, **options), temperature=0, **fields)


def guarded(p_unsafe: Any = 0.1, *, policy: Policy | None = None, **options: Any) -> SafeCoDeGuard:
    """A guard with a scripted judge."""
    judge = options.pop("judge", None) or ScriptedJudge(p_unsafe)
    inner = options.pop("model", None) or model()
    return SafeCoDeGuard(model=inner, judge=judge, policy=policy or Policy(), **options)


def by_request(request) -> float:
    return 0.95 if "cliff" in request.turn.query else 0.05


def merged(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


# -- steering --------------------------------------------------------------------------------


def test_an_unsafe_verdict_turns_help_into_a_refusal():
    replies = {HELP: 0.3, REFUSAL: 0.0}
    plain = model(replies)
    assert plain.invoke(ask()).text == HELP
    assert guarded(0.95, model=plain).invoke(ask()).text == REFUSAL


def test_a_safe_verdict_turns_a_refusal_into_help():
    replies = {HELP: 0.0, REFUSAL: 0.3}
    plain = model(replies)
    assert plain.invoke(ask()).text == REFUSAL
    assert guarded(0.05, model=plain).invoke(ask()).text == HELP


def test_undecided_is_left_to_plain_decoding():
    replies = {HELP: 0.0, REFUSAL: 0.3}
    reply = guarded(0.5, model=model(replies)).invoke(ask())
    verdict = Verdict.from_message(reply)
    assert (verdict.label, verdict.action, verdict.decoding) == ("undecided", "pass", None)
    assert reply.text == REFUSAL


def test_the_same_model_judges_by_default():
    guard = SafeCoDeGuard(model=model({HELP: 0.3, REFUSAL: 0.0}, p_unsafe=0.9))
    verdict = Verdict.from_message(guard.invoke(ask()))
    assert verdict.label == "unsafe"
    assert verdict.parse_status == "logits"
    assert verdict.label_mass == pytest.approx(0.99, abs=1e-3)


def test_same_model_verdict_and_answer_share_one_prefill():
    inner = model(p_unsafe=0.9)
    SafeCoDeGuard(model=inner).invoke(ask())
    assert [kind for kind, _, _ in inner.vlm.calls].count("prefill") == 1


def test_a_cached_judgement_is_marked_and_asks_nobody():
    judge = ScriptedJudge(0.9)
    guard = guarded(judge=judge)
    first, second = (Verdict.from_message(guard.invoke(ask())) for _ in range(2))
    assert [first.judge.cached, second.judge.cached] == [False, True]
    assert len(judge.requests) == 1
    guard.invoke(ask(QUERY + " Please."))
    assert len(judge.requests) == 2


def test_another_history_is_another_judgement():
    judge = ScriptedJudge(0.9)
    guard = guarded(judge=judge)
    guard.invoke(ask())
    guard.invoke([HumanMessage("Hello"), AIMessage("Hi"), *ask()])
    assert len(judge.requests) == 2


# -- every path carries the verdict ----------------------------------------------------------


@pytest.fixture
def recorder() -> EventRecorder:
    return EventRecorder()


def check_reply(reply: Any, recorder: EventRecorder, *, count: int = 1) -> None:
    assert reply.text == HELP
    assert Verdict.from_message(reply).action == "guide"
    assert len(Verdict.all_from_message(reply)) == 1
    assert [v.action for v in recorder.verdicts] == ["guide"] * count
    assert len({v.id for v in recorder.verdicts}) == count


def test_invoke(recorder):
    check_reply(guarded().invoke(ask(), {"callbacks": [recorder]}), recorder)


async def test_ainvoke(recorder):
    check_reply(await guarded().ainvoke(ask(), {"callbacks": [recorder]}), recorder)


def test_stream(recorder):
    chunks = list(guarded().stream(ask(), {"callbacks": [recorder]}))
    check_reply(merged(chunks), recorder)
    assert [bool(Verdict.all_from_message(c)) for c in chunks].count(True) == 1
    assert chunks[-1].chunk_position == "last"
    assert len(chunks) > 3


async def test_astream(recorder):
    chunks = [c async for c in guarded().astream(ask(), {"callbacks": [recorder]})]
    check_reply(merged(chunks), recorder)
    assert len(chunks) > 3


def test_batch(recorder):
    replies = guarded().batch([ask(), ask("And here?"), ask()], {"callbacks": [recorder]})
    assert [r.text for r in replies] == [HELP] * 3
    check_reply(replies[1], recorder, count=3)
    run_ids = {str(event.run_id) for event in recorder.events}
    assert run_ids == {Verdict.from_message(reply).run_id for reply in replies}


async def test_abatch(recorder):
    replies = await guarded().abatch([ask(), ask("And here?")], {"callbacks": [recorder]})
    check_reply(replies[0], recorder, count=2)


async def test_events_v2(recorder):
    events = [e async for e in guarded().astream_events(ask(), version="v2")]
    verdicts = [v for e in events if (v := Verdict.from_event(e))]
    assert [v.action for v in verdicts] == ["guide"]
    (custom,) = [e for e in events if e["event"] == "on_custom_event"]
    (start,) = [e for e in events if e["event"] == "on_chat_model_start"]
    assert custom["run_id"] == start["run_id"]


async def test_events_v2_in_a_chain():
    chain = RunnableLambda(lambda x: x) | guarded() | StrOutputParser()
    events = [e async for e in chain.astream_events(ask(), version="v2")]
    assert [v.action for e in events if (v := Verdict.from_event(e))] == ["guide"]


def test_events_v3(recorder):
    stream = guarded().stream_events(ask(), {"callbacks": [recorder]}, version="v3")
    list(stream)
    assert stream.output.text == HELP
    assert Verdict.from_message(stream.output).action == "guide"
    assert [v.action for v in recorder.verdicts] == ["guide"]


async def test_events_v3_async(recorder):
    stream = await guarded().astream_events(ask(), {"callbacks": [recorder]}, version="v3")
    async for _ in stream:
        pass
    assert Verdict.from_message(await stream.output).action == "guide"
    assert [v.action for v in recorder.verdicts] == ["guide"]


def test_sequence_and_branch(recorder):
    branch = RunnableBranch(
        (is_action("block", "review"), RunnableLambda(lambda m: "escalated")),
        RunnableLambda(lambda m: m.text),
    )
    chain = guarded() | branch
    assert chain.invoke(ask(), {"callbacks": [recorder]}) == HELP
    assert [v.action for v in recorder.verdicts] == ["guide"]
    blocked = guarded(policy=Policy(actions={"safe": "block"})) | branch
    assert blocked.invoke(ask()) == "escalated"


def test_route_by_action():
    routes = {"block": RunnableLambda(lambda m: "blocked"), "review": RunnableLambda(lambda m: "?")}
    chain = guarded(0.99, policy=Policy(actions={"unsafe": "block"})) | route_by_action(
        routes, default=StrOutputParser()
    )
    assert chain.invoke(ask()) == "blocked"
    assert (guarded() | route_by_action(routes, default=StrOutputParser())).invoke(ask()) == HELP


def test_fallbacks(recorder):
    guard = guarded().with_fallbacks([FakeListChatModel(responses=["fallback"])])
    check_reply(guard.invoke(ask(), {"callbacks": [recorder]}), recorder)
    raising = guarded(policy=Policy(actions={"safe": "block"}, on_block="raise"))
    fallback = raising.with_fallbacks([FakeListChatModel(responses=["fallback"])])
    assert fallback.invoke(ask()).text == "fallback"


def test_handlers_sync_and_async():
    seen: list[Verdict] = []
    guarded().invoke(ask(), {"callbacks": [VerdictHandler(seen.append)]})

    async def note(verdict: Verdict) -> None:
        await asyncio.sleep(0)
        seen.append(verdict)

    asyncio.run(guarded().ainvoke(ask(), {"callbacks": [AsyncVerdictHandler(note)]}))
    assert [v.action for v in seen] == ["guide", "guide"]


def test_langgraph_node(recorder):
    from langgraph.graph import END, START, MessagesState, StateGraph

    from safecode_guard.runnables.branching import verdict_edge

    guard = guarded(by_request, policy=Policy(actions={"unsafe": "review"}))
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [guard.invoke(state["messages"])]})
    graph.add_node("human", lambda state: {"messages": [AIMessage("reviewed")]})
    graph.add_edge(START, "model")
    nodes = {"block": END, "review": "human", "pass": END, "guide": END}
    graph.add_conditional_edges("model", verdict_edge(nodes))
    graph.add_edge("human", END)
    app = graph.compile()
    safe = app.invoke({"messages": ask()}, {"callbacks": [recorder]})["messages"]
    assert safe[-1].text == HELP
    risky = app.invoke({"messages": ask("Run to the cliff?")})["messages"]
    assert risky[-1].text == "reviewed"
    assert [v.label for v in recorder.verdicts] == ["safe"]
    custom = list(app.stream({"messages": ask()}, stream_mode="custom"))
    assert [Verdict.from_event(c[EVENT_NAME]).label for c in custom] == ["safe"]


def test_verdicts_survive_a_checkpoint():
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, MessagesState, StateGraph

    guard = guarded()
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [guard.invoke(state["messages"])]})
    graph.add_edge(START, "model")
    app = graph.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    app.invoke({"messages": ask()}, config)
    assert Verdict.from_message(app.get_state(config).values["messages"][-1]).action == "guide"


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


def slow_judge() -> ScriptedJudge:
    def judged(request):
        time.sleep(0.05)
        return 0.1

    return ScriptedJudge(judged)


def test_no_token_before_the_verdict_in_stream():
    watch = Watch()
    chunks = list(guarded(judge=slow_judge()).stream(ask(), {"callbacks": [watch]}))
    assert watch.order[0] == "verdict"
    assert "token" in watch.order
    assert not chunks[0].text
    assert Verdict.from_message(chunks[0])


async def test_no_token_before_the_verdict_in_astream():
    watch = Watch()
    chunks = [c async for c in guarded(judge=slow_judge()).astream(ask(), {"callbacks": [watch]})]
    assert watch.order[0] == "verdict"
    assert not chunks[0].text
    assert Verdict.from_message(chunks[0])


async def test_no_token_before_the_verdict_in_events():
    guard = guarded(judge=slow_judge())
    kinds = []
    async for event in guard.astream_events(ask(), version="v2"):
        if event["event"] == "on_custom_event":
            kinds.append("verdict")
        elif event["event"] == "on_chat_model_stream" and event["data"]["chunk"].text:
            kinds.append("token")
    assert kinds[0] == "verdict"
    assert kinds.count("token") > 3


def test_no_token_before_the_verdict_in_a_streaming_invoke():
    from langchain_core.tracers.event_stream import _AstreamEventsCallbackHandler  # noqa: F401

    watch = Watch()
    chain = RunnableLambda(lambda x: x) | guarded(judge=slow_judge(), model=model())
    list(chain.stream(ask(), {"callbacks": [watch]}))
    assert watch.order[0] == "verdict"


def test_a_blocked_stream_holds_only_the_refusal():
    policy = Policy(actions={"unsafe": "block"})
    chunks = list(guarded(0.99, policy=policy).stream(ask()))
    whole = merged(chunks)
    assert whole.text == policy.refusal_text
    assert whole.response_metadata["finish_reason"] == "content_filter"
    assert Verdict.from_message(whole).action == "block"


def test_a_blocked_turn_generates_nothing():
    inner = model()
    guarded(0.99, model=inner, policy=Policy(actions={"unsafe": "block"})).invoke(ask())
    assert inner.vlm.calls == []


# -- failing closed --------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [JudgeError("down"), RuntimeError("boom"), "nonsense"])
@pytest.mark.parametrize(("preset", "action"), [("balanced", "review"), ("strict", "block")])
def test_a_failed_judge_never_passes(failure, preset, action):
    class Broken(ScriptedJudge):
        def judge(self, request):
            if isinstance(failure, Exception):
                raise failure
            return failure

    policy = Policy.preset(preset)
    reply = guarded(judge=Broken(), policy=policy).invoke(ask())
    verdict = Verdict.from_message(reply)
    assert (verdict.label, verdict.action, verdict.degraded) == (None, action, True)
    assert verdict.error
    assert HELP not in reply.text


def test_a_failed_judge_can_steer_towards_refusal():
    inner = model({HELP: 0.3, REFUSAL: 0.0})
    guard = guarded(JudgeError("down"), model=inner, policy=Policy.preset("permissive"))
    assert guard.invoke(ask()).text == REFUSAL


def test_a_late_judge_fails_within_its_timeout():
    judge = ScriptedJudge(lambda request: time.sleep(5) or 0.1)
    policy = Policy(judge={"kind": "custom", "id": "scripted", "timeout_s": 0.1})
    started = time.monotonic()
    verdict = Verdict.from_message(guarded(judge=judge, policy=policy).invoke(ask()))
    assert verdict.action == "review"
    assert "deadline" in verdict.error
    assert time.monotonic() - started < 2


def test_media_that_cannot_be_judged_blocks_the_turn():
    audio = {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}
    reply = guarded().invoke([HumanMessage([image_block(), audio, text_block(QUERY)])])
    verdict = Verdict.from_message(reply)
    assert (verdict.label, verdict.action, verdict.degraded) == (None, "block", True)
    assert [skipped.kind for skipped in verdict.media_skipped] == ["audio"]


def test_a_plain_model_refuses_such_media_with_a_typed_error():
    from safecode_guard.errors import ImageError

    audio = {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}
    with pytest.raises(ImageError, match="message 0, block 1"):
        model().invoke([HumanMessage([image_block(), audio])])


def test_an_image_in_history_makes_a_follow_up_an_image_turn():
    judge = ScriptedJudge(0.9)
    history = [*ask("What is this?"), AIMessage("A cliff."), HumanMessage("How do I run here?")]
    verdict = Verdict.from_message(guarded(judge=judge).invoke(history))
    assert verdict.label == "unsafe"
    assert len(judge.requests[0].turn.images) == 1


def test_an_image_from_a_tool_is_judged():
    call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])
    shot = ToolMessage([image_block()], tool_call_id="1")
    verdict = Verdict.from_message(guarded(0.9).invoke([HumanMessage("Look."), call, shot]))
    assert verdict.images[0].message_index == 2


def test_a_text_turn_passes_unjudged_unless_the_policy_says_otherwise():
    judge = ScriptedJudge(0.9)
    reply = guarded(judge=judge).invoke("Hello")
    assert Verdict.from_message(reply) is None
    assert "safecode" not in reply.response_metadata
    assert judge.requests == []
    policy = Policy(routing={"text_only": "judge"})
    assert Verdict.from_message(guarded(judge=judge, policy=policy).invoke("Hello"))


def test_raise_on_block():
    policy = Policy(actions={"unsafe": "block"}, on_block="raise")
    with pytest.raises(TurnBlocked) as caught:
        guarded(0.99, policy=policy).invoke(ask())
    assert caught.value.verdict.action == "block"


def test_one_bad_input_does_not_fail_the_batch():
    guard = guarded(by_request, policy=Policy(actions={"unsafe": "block"}, on_block="raise"))
    safe, blocked, also_safe = guard.batch(
        [ask(), ask("Jump off the cliff?"), ask("And here?")], return_exceptions=True
    )
    assert isinstance(blocked, TurnBlocked)
    assert safe.text == also_safe.text == HELP
    with pytest.raises(TurnBlocked):
        guard.batch([ask(), ask("Jump off the cliff?")])


async def test_one_bad_input_does_not_fail_the_abatch():
    guard = guarded(by_request, policy=Policy(actions={"unsafe": "block"}, on_block="raise"))
    inputs = [ask(), ask("Jump off the cliff?")]
    safe, blocked = await guard.abatch(inputs, return_exceptions=True)
    assert isinstance(blocked, TurnBlocked)
    assert safe.text == HELP
    with pytest.raises(TurnBlocked):
        await guard.abatch(inputs)


# -- output rail -----------------------------------------------------------------------------


def railed(request) -> float:
    return 0.95 if request.stage == "output" and "edge" in request.answer else 0.3


def test_output_rail_withholds_an_unsafe_answer():
    policy = Policy(output_rail={"when": "always"})
    reply = guarded(railed, policy=policy).invoke(ask())
    stages = [(v.stage, v.action) for v in Verdict.all_from_message(reply)]
    assert stages == [("input", "guide"), ("output", "block")]
    assert reply.text == policy.refusal_text


def test_output_rail_buffers_the_stream():
    chunks = list(guarded(railed, policy=Policy(output_rail={"when": "always"})).stream(ask()))
    assert HELP not in "".join(chunk.text for chunk in chunks)
    safe = list(guarded(0.1, policy=Policy(output_rail={"when": "always"})).stream(ask()))
    assert [chunk.text for chunk in safe if chunk.text] == [HELP]


def test_output_rail_judges_only_where_it_applies():
    judge = ScriptedJudge(0.1)
    guarded(judge=judge, policy=Policy(output_rail={"when": "unsafe"})).invoke(ask())
    assert [r.stage for r in judge.requests] == ["input"]


# -- policy, limits, identity ----------------------------------------------------------------


def test_a_model_without_logits_is_refused_unless_it_is_only_judged():
    inner = FakeListChatModel(responses=["Hello"])
    with pytest.raises(LogitsUnavailable, match="judge_only"):
        SafeCoDeGuard(model=inner, judge=ScriptedJudge())
    assert issubclass(LogitsUnavailable, TypeError)
    guard = SafeCoDeGuard(model=inner, judge=ScriptedJudge(), policy=Policy(mode="judge_only"))
    assert guard.invoke(ask()).text == "Hello"


def test_category_actions_need_a_judge_that_names_categories():
    policy = Policy(category_actions={"situational": "block"})
    with pytest.raises(PolicyError, match="categories"):
        SafeCoDeGuard(model=model(), policy=policy)
    with pytest.raises(PolicyError, match="categories"):
        guarded(policy=policy)
    SafeCoDeGuard(model=model(), judge=ScriptedJudge(gives_categories=True), policy=policy)


def test_beam_search_is_refused():
    with pytest.raises(UnsupportedGeneration, match="num_beams"):
        guarded().invoke(ask(), num_beams=4)


def test_the_deadline_ends_a_turn():
    class Slow(ScriptedVLM):
        def next_logits(self, ids, images):
            time.sleep(0.02)
            return super().next_logits(ids, images)

    inner = ChatTransformers.from_engine(Slow("a long answer " * 20), temperature=0)
    guard = guarded(model=inner, policy=Policy(deadline_s=0.2))
    with pytest.raises(TurnTimeout):
        guard.invoke(ask())


async def test_a_cancelled_call_stops_decoding():
    class Slow(ScriptedVLM):
        def next_logits(self, ids, images):
            time.sleep(0.01)
            return super().next_logits(ids, images)

    vlm = Slow("a long answer " * 40)
    guard = guarded(model=ChatTransformers.from_engine(vlm, temperature=0))
    task = asyncio.create_task(guard.ainvoke(ask()))
    while len(vlm.calls) < 5:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    done = len(vlm.calls)
    await asyncio.sleep(1)
    assert len(vlm.calls) <= done + 2


def test_a_closed_stream_stops_decoding():
    inner = model("a long answer " * 20)
    stream = guarded(model=inner).stream(ask())
    for _, _ in zip(range(3), stream, strict=False):
        pass
    stream.close()
    done = len(inner.vlm.calls)
    assert done < 60
    assert guarded(model=inner).invoke(ask()).text.startswith("a long")


def test_digest_and_identity_tell_policies_judges_and_models_apart():
    a, b = guarded(), guarded(policy=Policy.preset("strict"))
    c = guarded(judge=ScriptedJudge(0.1, id="other"))
    digests = {Verdict.from_message(g.invoke(ask())).policy.digest for g in (a, b, c)}
    assert len(digests) == 3
    keys = {str(g._identifying_params) for g in (a, b, c)}
    assert len(keys) == 3
    warmer = guarded(model=ChatTransformers.from_engine(ScriptedVLM(HELP), temperature=0.7))
    assert str(warmer._identifying_params) not in keys


def test_two_policies_do_not_share_cached_answers():
    cache = InMemoryCache()
    lax = guarded(0.99, cache=cache)
    strict = guarded(0.99, cache=cache, policy=Policy(actions={"unsafe": "block"}))
    assert lax.invoke(ask()).text == HELP
    assert strict.invoke(ask()).text == strict.policy.refusal_text
    again = strict.invoke(ask())
    assert Verdict.from_message(again).action == "block"


def test_captions_stay_out_of_verdicts_unless_recorded():
    from safecode_guard.verdict import Judgement

    judgement = Judgement(
        judge_id="scripted", prompt_version="1", p_unsafe=0.9, caption="A cliff.", rationale="High."
    )
    hidden = Verdict.from_message(guarded(judgement).invoke(ask()))
    assert (hidden.caption, hidden.rationale) == (None, None)
    shown = guarded(judgement, policy=Policy(record_content=True)).invoke(ask())
    assert Verdict.from_message(shown).caption == "A cliff."


def test_verdicts_hold_no_pixels_and_no_text_of_the_conversation():
    text = Verdict.from_message(guarded().invoke(ask("A secret request"))).model_dump_json()
    assert "secret" not in text
    assert len(text) < 2000


def test_trace_on_demand():
    reply = guarded(0.9).invoke(ask(), safecode_trace=True)
    steps = reply.response_metadata["safecode_trace"]
    assert [step["step"] for step in steps] == list(range(5))
    assert all(step["clean"] and step["second"] for step in steps)
    assert "safecode_trace" not in guarded(0.9).invoke(ask()).response_metadata


def test_check_generates_nothing():
    inner = model()
    guard = guarded(0.9, model=inner)
    verdict = guard.check(ask())
    assert (verdict.label, verdict.action) == ("unsafe", "guide")
    assert inner.vlm.calls == []
    assert guard.check("Hello").action == "pass"


async def test_acheck_and_tool_calls():
    judge = ScriptedJudge(0.9)
    guard = guarded(judge=judge)
    call = {"name": "walk_to", "args": {"target": "edge"}, "id": "7"}
    verdict = await guard.acheck(ask(), tool_call=call)
    assert verdict.stage == "tool_call"
    assert verdict.tool_call.name == "walk_to"
    assert judge.requests[0].tool_call.arguments == {"target": "edge"}


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


def test_batches_decode_together():
    inner = model()
    guarded(model=inner).batch([ask(), ask("And here?"), ask("There?")])
    assert [rows for kind, rows, _ in inner.vlm.calls if kind == "prefill"] == [6]


def test_mixed_batches_are_split_where_they_must_be():
    guard = guarded(by_request, model=model({HELP: 0.3, REFUSAL: 0.0}))
    inputs = [ask("cliff"), "Hello", ask("park"), ask("two", "red", "blue")]
    replies = guard.batch(inputs)
    one_by_one = [guard.invoke(messages) for messages in inputs]
    assert [r.text for r in replies] == [r.text for r in one_by_one]


async def test_judge_tokens_do_not_leak_into_the_stream():
    class Streaming(FakeListChatModel):
        pass

    judge = Streaming(responses=["unsafe"])
    guard = SafeCoDeGuard(model=model(), judge=judge)
    texts = []
    async for event in guard.astream_events(ask(), version="v2"):
        if event["event"] == "on_chat_model_stream":
            texts.append(event["data"]["chunk"].text)
    assert "unsafe" not in "".join(texts)


def test_from_settings_merges_overrides_key_by_key(monkeypatch):
    from safecode_guard.settings import SafeCoDeSettings

    monkeypatch.setenv("SAFECODE_PRESET", "strict")
    monkeypatch.setenv("SAFECODE_ACTIONS__UNSAFE", "block")
    for settings in (None, SafeCoDeSettings()):
        guard = SafeCoDeGuard.from_settings(model(), settings, actions={"safe": "pass"})
        actions = guard.policy.actions
        assert (actions.safe, actions.unsafe, actions.judge_error) == ("pass", "block", "block")
    judge = {"kind": "custom", "id": "scripted"}
    guard = SafeCoDeGuard.from_settings(
        model(), SafeCoDeSettings(), judge=ScriptedJudge(), decoding={"alpha": 0.5}
    )
    assert guard.policy.decoding.alpha == 0.5
    assert guard.policy.updated(judge=judge).judge.id == "scripted"


def test_the_identity_of_a_guard_is_its_verdicts_digest():
    own = SafeCoDeGuard(model=model(), strategy=None)
    assert own._identifying_params["policy"] == own.check(ask()).policy.digest
    other = guarded()
    assert other._identifying_params["policy"] == other.check(ask()).policy.digest


def test_a_question_that_cannot_be_asked_is_a_failed_check():
    from safecode_guard.errors import TemplateError

    class Picky(ScriptedVLM):
        def encode(self, turns, *, tools=()):
            if any("safe or unsafe" in turn.messages[-1].text for turn in turns):
                raise TemplateError("no questions", hint="none")
            return super().encode(turns, tools=tools)

    inner = ChatTransformers.from_engine(Picky(HELP), temperature=0)
    verdict = Verdict.from_message(SafeCoDeGuard(model=inner).invoke(ask()))
    assert (verdict.action, verdict.degraded) == ("review", True)
    assert "TemplateError" in verdict.error
