"""What is done at each point of an agent's loop, in whichever form it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from langchain.agents.middleware.types import (
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    ToolCallRequest,
)
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.tools import BaseTool
from langgraph.constants import TAG_NOSTREAM
from langgraph.types import Command

from safecode_guard.errors import TurnBlocked
from safecode_guard.pipeline.host import Host, ThisThread, run
from safecode_guard.policy import Policy
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard_langchain.answers import (
    last_answer,
    mark_of_request,
    place_of_answer,
    refusal,
    text_of,
    told_on,
)
from safecode_guard_langchain.gate import Call, Gate, Site, known_in, without_answer
from safecode_guard_langchain.notes import Notes, Updates
from safecode_guard_langchain.rails import Rails, Ruling
from safecode_guard_langchain.results import with_updates
from safecode_guard_langchain.scene import place_of_request
from safecode_guard_langchain.sight import Look
from safecode_guard_langchain.snapshots import Kept
from safecode_guard_langchain.state import VERDICTS, messages_in, note, sealed
from safecode_guard_langchain.tools import GuardedTool, passing
from safecode_guard_langchain.watch import (
    ModelWatch,
    Stopped,
    ToolWatch,
    watched,
)


@dataclass(frozen=True)
class AgentGuard:
    """Judges what an agent is asked, does, is shown and says."""

    gate: Gate
    input: bool = True
    output: bool = True
    guard: SafeCoDeGuard | None = None
    """The guarded model whose judge serves here, which judges its own turns."""
    workers: Any = None

    @property
    def rails(self) -> Rails:
        """What judges."""
        return self.gate.rails

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.rails.policy

    # -- the user's turn ----------------------------------------------------------------------

    async def user_turn(self, state: Any, host: Host) -> Updates | None:
        """Judge what the user says and shows, before anything is done about it."""
        messages = messages_in(state)
        if not self.input or self.guard is not None or not messages:
            return None
        notes = Notes.of(self.gate, messages, state)
        stopped = await self.stopped(messages, notes, host)
        if stopped is None:
            return notes.updates or None
        said = self._said_instead(stopped, notes)
        return {"messages": [said], "jump_to": "end", **notes.updates}

    async def stopped(
        self, messages: Sequence[BaseMessage], notes: Notes, host: Host
    ) -> Ruling | None:
        """Judge a request and pictures that have not passed; return what must not be shown."""
        looks = await host.call(partial(self.rails.sight.look_at, messages))
        return await self._stopped(messages, looks, notes, host)

    async def _stopped(
        self, messages: Sequence[BaseMessage], looks: Sequence[Look], notes: Notes, host: Host
    ) -> Ruling | None:
        """Do so with what a look at each message has found."""
        sight = self.rails.sight
        asked: frozenset[str] = frozenset()
        if self.input:
            place = await host.call(partial(place_of_request, messages, sight))
            asked = frozenset({mark_of_request(place)})
        passed = notes.passed
        pairs = zip(messages, looks, strict=True)
        new = [m for m, look in pairs if not look.marks <= passed and self._is_judged(m)]
        if not new and asked <= notes.passed:
            return None
        ruling = await self.rails.turn(messages, new, host)
        notes.verdict(ruling, self.gate.turn_key(messages))
        if not ruling.passes:
            return ruling
        notes.passes(asked.union(*(look.marks for look in looks)))
        return None

    def _is_judged(self, message: BaseMessage) -> bool:
        """Return whether pictures in a message must have passed before a model is shown them."""
        if not isinstance(message, ToolMessage):
            return self.input
        tool = message.name or ""
        return self.gate.results and self.rails.of_tool(tool) is not None

    # -- the model ----------------------------------------------------------------------------

    async def model_call(
        self,
        request: ModelRequest[Any],
        ask: Callable[[ModelRequest[Any], RunnableConfig], Awaitable[ModelResponse[Any]]],
        host: Host,
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Show the model what has passed, and let out what it answers if that passes, too."""
        notes = Notes.of(self.gate, messages_in(request.state), request.state)
        notes.asks_anew()
        judges_itself = self.guard is not None and request.model is self.guard
        shown = shown_by(request)
        looks = await host.call(partial(self.rails.sight.look_at, shown))
        known = [look.kept for look in looks]
        try:
            stopped = None if judges_itself else await self._stopped(shown, looks, notes, host)
            if stopped is not None:
                raise Stopped(stopped)
            notes.shows(shown)
            response = await ask(request, self._config(known, notes))
        except Stopped as stop:
            response = ModelResponse(result=[self._said_instead(stop.ruling, notes)])
        else:
            response = await self._answered(request.messages, response, notes, host)
        if not notes.updates:
            return response
        return ExtendedModelResponse(response, Command(update=notes.updates))

    def _config(self, known: Sequence[Kept], notes: Notes) -> RunnableConfig:
        """Return the config to call the model under: watched, and streaming nothing unjudged."""
        config = ensure_config()
        watch = ModelWatch(partial(self._look, known, notes))
        config["callbacks"] = watched(config.get("callbacks"), watch, inherit=True)
        if self.output:
            config["tags"] = [*(config.get("tags") or []), TAG_NOSTREAM]
        return config

    def _look(
        self, known: Sequence[Kept], notes: Notes, given: Sequence[BaseMessage], params: Any
    ) -> None:
        """Look at what a model is about to be shown.

        Raises:
            Stopped: If something in it has not passed, and does not.
        """
        if self.rails.sight.shows_the_same(given, known):
            return
        judges_itself = self._is_own_guard(params)
        if not judges_itself and (stopped := run(self.stopped(given, notes, ThisThread()))):
            raise Stopped(stopped)
        notes.shows(given)

    def _is_own_guard(self, params: Any) -> bool:
        """Return whether the model that is called is the guard, which judges what it is shown."""
        if self.guard is None or params.get("_type") != self.guard._llm_type:
            return False
        return bool(params.get("policy") == self.guard._identifying_params["policy"])

    async def _answered(
        self,
        messages: Sequence[BaseMessage],
        response: ModelResponse[Any],
        notes: Notes,
        host: Host,
    ) -> ModelResponse[Any]:
        """Judge all that came back: answers, and pictures beside them."""
        asked = notes.beyond(messages)
        for answer in (each for each in response.result if isinstance(each, AIMessage)):
            if self._has_judged(answer, notes):
                continue
            said = await self._unsaid(asked, answer, response.result, notes, host)
            if said is not None:
                return ModelResponse(result=[said])
        beside = [each for each in response.result if not isinstance(each, AIMessage)]
        if self.rails.sight.in_all(beside) - notes.passed:
            stopped = await self.stopped([*asked, *beside], notes, host)
            if stopped is not None:
                return ModelResponse(result=[self._said_instead(stopped, notes)])
        return response

    def _has_judged(self, answer: AIMessage, notes: Notes) -> bool:
        """Return whether an answer is the guard's own, which has judged it; note its verdict."""
        if self.guard is None or (told := told_on(answer, "input")) is None:
            return False
        note(notes.updates, VERDICTS, {self.gate.key("input", "turn"): sealed(told, "")})
        return told_on(answer, "output") is not None

    async def _unsaid(
        self,
        messages: Sequence[BaseMessage],
        answer: AIMessage,
        beside: Sequence[BaseMessage],
        notes: Notes,
        host: Host,
    ) -> AIMessage | None:
        """Judge an answer; return what is said in its place if it does not pass."""
        text = text_of(answer, beside)
        media = self.rails.sight.media(answer)
        if not self.output or not (text or media):
            return None
        mark = await host.call(partial(notes.mark, answer, text))
        if mark in notes.passed or not self.rails.judges_answers(messages, answer):
            return None
        passed = notes.passed
        ruling = await self.rails.answer(messages, answer, text, host, passed=passed)
        notes.verdict(ruling, self.gate.key("output", answer.id or mark))
        if ruling.passes:
            notes.passes(media | {mark})
            return None
        return self._said_instead(ruling, notes, id=answer.id)

    def _said_instead(self, ruling: Ruling, notes: Notes, *, id: str | None = None) -> AIMessage:
        """Return a refusal, which is an answer that passes.

        Raises:
            TurnBlocked: If the policy says so.
        """
        if self.policy.on_block == "raise" and ruling.verdict is not None:
            raise TurnBlocked(ruling.verdict)
        said = refusal(ruling, self.policy, id=id)
        notes.passes(frozenset({notes.mark(said, str(said.text))}))
        return said

    # -- after the model ----------------------------------------------------------------------

    async def proposed(self, state: Any, host: Host) -> Updates | None:
        """Judge the calls of the last answer; and the answer, if it came past the model."""
        messages = messages_in(state)
        answer = last_answer(messages)
        if answer is None:
            return None
        notes = Notes.of(self.gate, without_answer(messages), state)
        beside = messages if state.get("structured_response") is not None else ()
        said = await self._unsaid(notes.scene, answer, beside, notes, host)
        if said is not None:
            return {"messages": [said], **notes.updates}
        await self._calls(state, answer, messages, notes, host)
        return notes.updates or None

    async def _calls(
        self,
        state: Any,
        answer: AIMessage,
        messages: Sequence[BaseMessage],
        notes: Notes,
        host: Host,
    ) -> None:
        behind = messages[place_of_answer(messages) + 1 :]
        done = {m.tool_call_id for m in behind if isinstance(m, ToolMessage)}
        calls = [call for call in answer.tool_calls if call["id"] not in done]
        if not self.gate.calls or not calls:
            return
        keys = [self.gate.call_key(call) for call in calls]
        known = [
            known_in(state, key, call, notes.scene) for key, call in zip(keys, calls, strict=True)
        ]
        passed = notes.passed
        rulings = await self.rails.calls(notes.scene, calls, host, known=known, passed=passed)
        for key, ruling in zip(keys, rulings, strict=True):
            notes.verdict(ruling, key)

    async def finished(self, state: Any, host: Host) -> Updates | None:
        """Judge a final answer that came past the model, from a middleware for example."""
        messages = messages_in(state)
        answer = last_answer(messages)
        if answer is None or answer is not messages[-1]:
            return None
        notes = Notes.of(self.gate, without_answer(messages), state)
        said = await self._unsaid(notes.scene, answer, (), notes, host)
        return {"messages": [said], **notes.updates} if said else notes.updates or None

    # -- tools --------------------------------------------------------------------------------

    async def tool_call(
        self,
        request: ToolCallRequest,
        ask: Callable[[ToolCallRequest], Awaitable[Any]],
        host: Host,
    ) -> Any:
        """Hand down a guarded tool, and look at what comes back."""
        if not (self.gate.calls or self.gate.results):
            return await ask(request)
        site = Site.of(messages_in(request.state), request.state, self.gate)
        call = {**request.tool_call}
        try:
            output = await ask(self._guarded(request, site))
        except Stopped as stop:
            told = f"Not run: {stop.ruling.reason}."
            output = ToolMessage(told, name=call["name"], tool_call_id=call["id"], status="error")
        output = await self.gate.let_out_unknown(output, call, site, host)
        return with_updates(output, site.updates)

    def _guarded(self, request: ToolCallRequest, site: Site) -> ToolCallRequest:
        guarded = partial(GuardedTool.around, gate=self.gate, site=site, workers=self.workers)
        runtime, inner = request.runtime, request.tool
        if self.gate.calls:
            config = runtime.config  # the very one that the tool node runs the tool with
            watch = ToolWatch(partial(self._look_at_tool, site))
            config["callbacks"] = watched(config.get("callbacks"), watch, inherit=False)
        tools: list[BaseTool] = [guarded(each) for each in runtime.tools]
        tool = guarded(inner) if inner is not None else None
        return replace(request, tool=tool, runtime=replace(runtime, tools=tools))

    def _look_at_tool(self, site: Site, call: Call) -> None:
        """Look at a tool that starts: one that a guard let through, or somebody else's own.

        Raises:
            Stopped: If its call does not pass.
        """
        if site.token in passing.get():
            return
        ruling = run(self.gate.ruling(call, site, ThisThread()))
        if not ruling.passes:
            raise Stopped(ruling)


def shown_by(request: ModelRequest[Any]) -> list[BaseMessage]:
    """Return all messages that a request shows to the model."""
    system = [] if request.system_message is None else [request.system_message]
    return [*system, *request.messages]
