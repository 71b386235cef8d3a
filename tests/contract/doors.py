"""Every way in which a user may call a guard, each as a function from messages to what came out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, BaseMessageChunk
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph

from safecode_guard import Verdict
from safecode_guard.errors import GuardError


class Ear(BaseCallbackHandler):
    """Hears everything that LangChain tells callbacks, of every run."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.verdicts: list[Verdict] = []
        self.run_ids: list[str] = []

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        self.heard += [str(token), str(chunk)]

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.heard.append(str(response))

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.heard.append(str(outputs))

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, **k: Any) -> None:
        self.run_ids.append(str(run_id))

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        if found := Verdict.from_event({"event": "on_custom_event", "name": name, "data": data}):
            self.verdicts.append(found)


@dataclass
class Outcome:
    """What came out of one call."""

    message: BaseMessage | None = None
    error: Exception | None = None
    shown: list[str] = field(default_factory=list)
    """Everything that anybody could read on the way."""
    ear: Ear = field(default_factory=Ear)

    @property
    def text(self) -> str:
        return "" if self.message is None else str(self.message.text)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        return () if self.message is None else Verdict.all_from_message(self.message)

    @property
    def everything(self) -> str:
        """All that was shown and heard."""
        return "\n".join([*self.shown, *self.ear.heard, str(self.message), str(self.error)])


Door = Callable[[Any, list[BaseMessage]], Outcome]


def _merged(chunks: list[Any], outcome: Outcome) -> None:
    whole: BaseMessageChunk | None = None
    for chunk in chunks:
        outcome.shown.append(str(chunk))
        whole = chunk if whole is None else whole + chunk
    outcome.message = whole


def _door(call: Callable[[Any, Any, Any, Outcome], None]) -> Door:
    def through(guard: Any, messages: list[BaseMessage]) -> Outcome:
        outcome = Outcome()
        try:
            call(guard, messages, {"callbacks": [outcome.ear]}, outcome)
        except GuardError as error:
            outcome.error = error
        return outcome

    return through


def invoke(guard: Any, messages: Any, config: Any, outcome: Outcome) -> None:
    outcome.message = guard.invoke(messages, config)


def ainvoke(guard: Any, messages: Any, config: Any, outcome: Outcome) -> None:
    outcome.message = asyncio.run(guard.ainvoke(messages, config))


def stream(guard: Any, messages: Any, config: Any, outcome: Outcome) -> None:
    _merged(list(guard.stream(messages, config)), outcome)


def astream(guard: Any, messages: Any, config: Any, outcome: Outcome) -> None:
    async def all_chunks() -> list[Any]:
        return [chunk async for chunk in guard.astream(messages, config)]

    _merged(asyncio.run(all_chunks()), outcome)


def batch(guard: Any, messages: Any, config: Any, outcome: Outcome) -> None:
    (outcome.message,) = guard.batch([messages], config)


def abatch(guard: Any, messages: Any, config: Any, outcome: Outcome) -> None:
    (outcome.message,) = asyncio.run(guard.abatch([messages], config))


def events_v2(guard: Any, messages: Any, config: Any, outcome: Outcome) -> None:
    async def all_events() -> None:
        async for event in guard.astream_events(messages, config, version="v2"):
            outcome.shown.append(str(event))
            if event["event"] == "on_chat_model_end":
                outcome.message = event["data"]["output"]

    asyncio.run(all_events())


def events_v3(guard: Any, messages: Any, config: Any, outcome: Outcome) -> None:
    async def all_events() -> None:
        stream = await guard.astream_events(messages, config, version="v3")
        async for event in stream:
            outcome.shown.append(str(event))
        outcome.message = await stream.output

    asyncio.run(all_events())


def sequence(guard: Any, messages: Any, config: Any, outcome: Outcome) -> None:
    chain = RunnableLambda(lambda value: value) | guard | RunnableLambda(lambda value: value)
    outcome.message = chain.invoke(messages, config)


def fallbacks(guard: Any, messages: Any, config: Any, outcome: Outcome) -> None:
    class Unused(Exception):
        pass

    spare = RunnableLambda(lambda value: AIMessage("spare"))
    chain = guard.with_fallbacks([spare], exceptions_to_handle=(Unused,))
    outcome.message = chain.invoke(messages, config)


def graph(guard: Any, messages: Any, config: Any, outcome: Outcome) -> None:
    builder = StateGraph(MessagesState)
    builder.add_node("guard", lambda state: {"messages": [guard.invoke(state["messages"])]})
    builder.add_edge(START, "guard")
    builder.add_edge("guard", END)
    modes = ["messages", "updates", "custom", "values", "debug"]
    state: Any = None
    for mode, data in builder.compile().stream({"messages": messages}, config, stream_mode=modes):
        outcome.shown.append(str(data))
        state = data if mode == "values" else state
    outcome.message = state["messages"][-1]


DOORS: dict[str, Door] = {
    function.__name__: _door(function)
    for function in (
        invoke,
        ainvoke,
        stream,
        astream,
        batch,
        abatch,
        events_v2,
        events_v3,
        sequence,
        fallbacks,
        graph,
    )
}
