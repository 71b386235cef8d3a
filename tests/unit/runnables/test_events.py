"""Verdicts as events: to handlers, in event streams, and in LangGraph's custom stream."""

import asyncio
import json
from unittest.mock import MagicMock

import pytest
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.langchain import LangChainTracer
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from safecode_guard.policy import Policy
from safecode_guard.runnables import events
from safecode_guard.runnables.events import AsyncVerdictHandler, VerdictHandler
from safecode_guard.testing import EventRecorder, ScriptedJudge
from safecode_guard.verdict import CLOSED_EVENT, EVENT_NAME, Judgement, Verdict
from tests.messages import ask
from tests.unit.runnables.guards import HELP, guarded, judged_only


@pytest.fixture
def recorder() -> EventRecorder:
    return EventRecorder()


# -- handlers --------------------------------------------------------------------------------


def sent_by(tracer):
    """The metadata of the runs that a tracer would have sent."""
    calls = [call for call in tracer.client.mock_calls if call[0] in ("create_run", "update_run")]
    return [call.kwargs.get("extra", {}).get("metadata", {}) for call in calls]


def streamed(guard, config):
    return list(guard.stream(ask(), config))


def invoked_later(guard, config):
    return asyncio.run(guard.ainvoke(ask(), config))


@pytest.mark.parametrize("call", [lambda g, c: g.invoke(ask(), c), invoked_later, streamed])
def test_langsmith_is_told_the_outcome_and_no_content(call):
    tracer = LangChainTracer(client=MagicMock())
    judge = ScriptedJudge(
        Judgement(judge_id="scripted", prompt_version="1", p_unsafe=0.9, caption="A cliff.")
    )
    policy = Policy(stages={"output": {"when": "always"}}, actions={"unsafe": "review"})
    call(guarded(judge=judge, policy=policy), {"callbacks": [tracer]})
    noted = {
        "safecode_input_label": "unsafe",
        "safecode_input_action": "review",
        "safecode_input_p_unsafe": 0.9,
        "safecode_input_judge": "scripted",
        "safecode_input_degraded": False,
    }
    assert any(noted.items() <= metadata.items() for metadata in sent_by(tracer))
    assert "A cliff" not in json.dumps(sent_by(tracer), default=repr)


def test_of_several_verdicts_at_a_stage_the_gravest_stays():
    traced = MagicMock(metadata={})
    traced.add_metadata.side_effect = traced.metadata.update
    tracer = LangChainTracer(client=MagicMock())
    tracer.run_map["r"] = traced
    for action, label in (("pass", "safe"), ("block", "unsafe"), ("review", "undecided")):
        verdict = MagicMock(stage="tool_call", label=label, action=action)
        events._note_in_trace(verdict, MagicMock(handlers=[tracer]), "r")
    assert traced.metadata["safecode_tool_call_label"] == "unsafe"


def test_handlers_sync_and_async():
    seen: list[Verdict] = []
    guarded().invoke(ask(), {"callbacks": [VerdictHandler(seen.append)]})

    async def note(verdict: Verdict) -> None:
        await asyncio.sleep(0)
        seen.append(verdict)

    asyncio.run(guarded().ainvoke(ask(), {"callbacks": [AsyncVerdictHandler(note)]}))
    assert [v.action for v in seen] == ["guide", "guide"]


def test_a_handler_passes_over_the_events_of_others():
    seen: list[Verdict] = []
    handler = VerdictHandler(seen.append)
    handler.on_custom_event("something.else", {"label": "safe"}, run_id=None)
    assert seen == []


def test_a_handler_that_breaks_costs_nobody_the_answer():
    def broken(verdict):
        raise RuntimeError("no such table")

    reply = guarded().invoke(ask(), {"callbacks": [VerdictHandler(broken)]})
    assert (reply.text, Verdict.from_message(reply).action) == (HELP, "guide")


def test_the_rails_verdict_is_told_too(recorder):
    policy = Policy(stages={"output": {"when": "always"}})
    reply = guarded(policy=policy).invoke(ask(), {"callbacks": [recorder]})
    assert [verdict.stage for verdict in recorder.verdicts] == ["input", "output"]
    first, second = Verdict.all_from_message(reply)
    assert recorder.closed == [first]
    assert [verdict.id for verdict in recorder.verdicts] == [first.id, second.id]
    assert {event.run_id for event in recorder.events} == {recorder.events[0].run_id}


def test_a_turn_that_passes_unjudged_is_told_to_nobody(recorder):
    guarded().invoke("Hello", {"callbacks": [recorder]})
    assert recorder.events == []


def test_tags_and_metadata_of_the_run_come_with_the_event(recorder):
    config = {"callbacks": [recorder], "tags": ["mine"], "metadata": {"user": "7"}}
    guarded().invoke(ask(), config)
    assert [event.name for event in recorder.events] == [EVENT_NAME, CLOSED_EVENT]
    for event in recorder.events:
        assert "mine" in event.tags
        assert event.metadata["user"] == "7"


# -- event streams ---------------------------------------------------------------------------


async def test_events_v2():
    events = [e async for e in guarded().astream_events(ask(), version="v2")]
    verdicts = [v for e in events if (v := Verdict.from_event(e))]
    assert [v.action for v in verdicts] == ["guide"]
    closed = [v for e in events if (v := Verdict.from_event(e, name=CLOSED_EVENT))]
    assert [(v.id, v.obeyed) for v in closed] == [(verdicts[0].id, True)]
    runs = {e["run_id"] for e in events if e["event"] in ("on_custom_event", "on_chat_model_start")}
    assert runs == {verdicts[0].run_id}


async def test_events_v2_in_a_chain():
    chain = RunnableLambda(lambda x: x) | guarded() | StrOutputParser()
    events = [e async for e in chain.astream_events(ask(), version="v2")]
    assert [v.action for e in events if (v := Verdict.from_event(e))] == ["guide"]


async def test_events_v2_of_a_model_that_is_only_judged_hold_one_run_of_a_model():
    events = [e async for e in judged_only().astream_events(ask(), version="v2")]
    starts = [e for e in events if e["event"] == "on_chat_model_start"]
    assert [e["name"] for e in starts] == ["SafeCoDeGuard"]
    (verdict,) = [v for e in events if (v := Verdict.from_event(e))]
    assert verdict.run_id == starts[0]["run_id"]


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


# -- LangGraph -------------------------------------------------------------------------------


def graph(guard, **options):
    made = StateGraph(MessagesState)
    made.add_node("model", lambda state: {"messages": [guard.invoke(state["messages"])]})
    made.add_edge(START, "model")
    return made.compile(**options)


def test_a_graphs_custom_stream_holds_the_verdict():
    custom = list(graph(guarded()).stream({"messages": ask()}, stream_mode="custom"))
    assert [[*entry] for entry in custom] == [[EVENT_NAME], [CLOSED_EVENT]]
    assert Verdict.from_event(custom[0][EVENT_NAME]) == Verdict.from_event(custom[0])
    assert [Verdict.from_event(entry) for entry in custom][1] is None
    assert Verdict.from_event(custom[1], name=CLOSED_EVENT).obeyed


async def test_a_graphs_custom_stream_holds_the_verdict_of_an_async_node():
    guard, made = guarded(), StateGraph(MessagesState)

    async def node(state):
        return {"messages": [await guard.ainvoke(state["messages"])]}

    made.add_node("model", node)
    made.add_edge(START, "model")
    stream = made.compile().astream({"messages": ask()}, stream_mode="custom")
    assert [v.label async for entry in stream if (v := Verdict.from_event(entry))] == ["safe"]


def test_a_graphs_message_stream_holds_nothing_of_a_blocked_answer():
    def judged(request):
        return 0.95 if request.stage == "output" else 0.1

    guard = judged_only(ScriptedJudge(judged), stages={"output": {"when": "always"}})
    streamed = graph(guard).stream({"messages": ask()}, stream_mode="messages")
    assert HELP not in "".join(message.text for message, _ in streamed)


def test_verdicts_survive_a_checkpoint():
    app = graph(guarded(), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    app.invoke({"messages": ask()}, config)
    last = app.get_state(config).values["messages"][-1]
    assert isinstance(last, AIMessage)
    assert Verdict.from_message(last).action == "guide"
