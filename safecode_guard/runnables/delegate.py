"""Guarding a model that cannot be steered: judge, then pass, hold or block.

The model behind is any LangChain chat model. It gets the conversation only if the verdict lets it
through, with the very bytes that were judged in the place of any image URLs; its own messages
come out with the verdicts added.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding, RunnableParallel, RunnableSequence

from safecode_guard.errors import PolicyError, TurnBlocked
from safecode_guard.judges.protocol import JudgeRequest
from safecode_guard.pipeline import Examiner
from safecode_guard.runnables.events import emit_verdict
from safecode_guard.runnables.messages import verdict_chunk
from safecode_guard.runnables.structured import Output
from safecode_guard.turns.reading import read_and_inline
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import Verdict, to_metadata

Options = dict[str, Any]


@dataclass(frozen=True)
class _Call:
    """One call of the model behind."""

    messages: list[BaseMessage]
    stop: list[str] | None
    options: Options
    turn: Turn

    @property
    def forced(self) -> bool:
        """Whether the answer must follow a schema, so that no text can stand in for it."""
        output = Output.from_options(self.options)
        return output.forced_tool or output.schema is not None

    def question(self, answer: ChatResult | None = None) -> JudgeRequest:
        """Return what the judge is asked: the turn, or the finished answer to it."""
        if answer is None:
            return JudgeRequest("input", self.turn)
        return JudgeRequest("output", self.turn, answer=answer.generations[0].message.text)


@dataclass(frozen=True)
class Delegate:
    """Serves turns by another chat model, judged before and, if the policy says so, after."""

    model: BaseChatModel
    examiner: Examiner

    def generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: CallbackManagerForLLMRun | None,
        options: Options,
    ) -> ChatResult:
        """Answer a turn."""
        call = self._call(messages, stop, options)
        verdict = _told(self.examiner.check(call.question()), run_manager)
        return self._complete(call, verdict, run_manager)

    async def agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: AsyncCallbackManagerForLLMRun | None,
        options: Options,
    ) -> ChatResult:
        """Answer a turn without blocking the event loop."""
        call = self._call(messages, stop, options)
        verdict = _told(await self.examiner.acheck(call.question()), _sync(run_manager))
        return await self._acomplete(call, verdict, run_manager)

    def stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: CallbackManagerForLLMRun | None,
        options: Options,
    ) -> Iterator[ChatGenerationChunk]:
        """Answer a turn as chunks; in one piece where the finished text has to be judged."""
        call = self._call(messages, stop, options)
        verdict = _told(self.examiner.check(call.question()), run_manager)
        streams = type(self.model)._stream is not BaseChatModel._stream
        if not streams or self._in_one_piece(verdict):
            yield _as_chunk(self._complete(call, verdict, run_manager))
            return
        yield from _announced(verdict)
        yield from self.model._stream(call.messages, stop=stop, run_manager=run_manager, **options)

    async def astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: AsyncCallbackManagerForLLMRun | None,
        options: Options,
    ) -> AsyncIterator[ChatGenerationChunk]:
        """Answer a turn as chunks without blocking the event loop; see `stream`."""
        call = self._call(messages, stop, options)
        verdict = _told(await self.examiner.acheck(call.question()), _sync(run_manager))
        kind, core = type(self.model), BaseChatModel
        streams = kind._stream is not core._stream or kind._astream is not core._astream
        if not streams or self._in_one_piece(verdict):
            yield _as_chunk(await self._acomplete(call, verdict, run_manager))
            return
        for chunk in _announced(verdict):
            yield chunk
        stream = self.model._astream(call.messages, stop=stop, run_manager=run_manager, **options)
        async for chunk in stream:
            yield chunk

    def _call(self, messages: list[BaseMessage], stop: list[str] | None, options: Options) -> _Call:
        turn, inlined = read_and_inline(messages, self.examiner.policy.images)
        return _Call(inlined, stop, options, turn)

    def _complete(
        self, call: _Call, verdict: Verdict, run_manager: CallbackManagerForLLMRun | None
    ) -> ChatResult:
        if _stops(verdict):
            return self._withheld(call, [verdict])
        result = self.model._generate(
            call.messages, stop=call.stop, run_manager=run_manager, **call.options
        )
        if not self._is_railed(verdict):
            return _with_verdicts(result, [verdict])
        after = self._railing(self.examiner.check(call.question(result)))
        return self._finished(call, result, verdict, _told(after, run_manager))

    async def _acomplete(
        self, call: _Call, verdict: Verdict, run_manager: AsyncCallbackManagerForLLMRun | None
    ) -> ChatResult:
        if _stops(verdict):
            return self._withheld(call, [verdict])
        result = await self.model._agenerate(
            call.messages, stop=call.stop, run_manager=run_manager, **call.options
        )
        if not self._is_railed(verdict):
            return _with_verdicts(result, [verdict])
        after = self._railing(await self.examiner.acheck(call.question(result)))
        return self._finished(call, result, verdict, _told(after, _sync(run_manager)))

    def _finished(
        self, call: _Call, result: ChatResult, before: Verdict, after: Verdict
    ) -> ChatResult:
        if _stops(after):
            return self._withheld(call, [before, after])
        return _with_verdicts(result, [before, after])

    def _in_one_piece(self, verdict: Verdict) -> bool:
        return _stops(verdict) or self._is_railed(verdict)

    def _is_railed(self, verdict: Verdict) -> bool:
        rail = self.examiner.policy.output_rail
        return _is_judged(verdict) and rail.applies(verdict.label)

    def _railing(self, verdict: Verdict) -> Verdict:
        """Return the verdict on a finished answer with the rail's own action where it is unsafe."""
        if verdict.label != "unsafe":
            return verdict
        return verdict.model_copy(update={"action": self.examiner.policy.output_rail.action})

    def _withheld(self, call: _Call, verdicts: list[Verdict]) -> ChatResult:
        policy, last = self.examiner.policy, verdicts[-1]
        if policy.on_block == "raise" or call.forced:
            raise TurnBlocked(last)
        text = policy.review_text if last.action == "review" else policy.refusal_text
        message = AIMessage(text, response_metadata={"finish_reason": "content_filter"})
        return _with_verdicts(ChatResult(generations=[ChatGeneration(message=message)]), verdicts)


def rebind_tools(
    guard: BaseChatModel, model: BaseChatModel, tools: Sequence[Any], options: Options
) -> Runnable[Any, AIMessage]:
    """Return the guard with tools bound in the form that the guarded model gives them.

    Raises:
        PolicyError: If the model does something else than bind arguments; the guard would be lost.
    """
    inner = model.bind_tools(tools, **options)
    if not isinstance(inner, RunnableBinding) or inner.bound is not model:
        raise PolicyError(
            f"{type(model).__name__}.bind_tools does more than bind arguments.",
            hint="Bind the tools to the guard yourself: guard.bind(tools=[...]).",
        )
    return guard.bind(**inner.kwargs)


def rebind_structured(
    guard: BaseChatModel, model: BaseChatModel, schema: Any, **options: Any
) -> Runnable[Any, Any]:
    """Return the model's own chain for structured output with the guard in the model's place.

    Raises:
        PolicyError: If the model cannot be found in that chain; the guard would be lost.
    """
    chain = model.with_structured_output(schema, **options)
    replaced: Runnable[Any, Any] | None = _replaced(chain, model, guard)
    if replaced is None:
        raise PolicyError(
            f"The chain of {type(model).__name__}.with_structured_output hides its model.",
            hint="Bind the schema to the guard yourself, and parse its answer.",
        )
    return replaced


def _replaced(chain: Any, model: Any, guard: Any) -> Any:
    """Return a chain with a model replaced wherever it stands, or None if it is not in it."""
    if chain is model:
        return guard
    if isinstance(chain, RunnableBinding):
        bound = _replaced(chain.bound, model, guard)
        return bound and guard.bind(**chain.kwargs).with_config(chain.config)
    if isinstance(chain, RunnableSequence):
        steps = [_replaced(step, model, guard) for step in chain.steps]
        if not any(steps):
            return None
        merged = (new or old for new, old in zip(steps, chain.steps, strict=True))
        return RunnableSequence(*merged)
    if isinstance(chain, RunnableParallel):
        named = {key: _replaced(step, model, guard) for key, step in chain.steps__.items()}
        if not any(named.values()):
            return None
        return RunnableParallel({k: named[k] or old for k, old in chain.steps__.items()})
    return None


def _stops(verdict: Verdict) -> bool:
    return verdict.action in ("block", "review")


def _is_judged(verdict: Verdict) -> bool:
    return verdict.label is not None or verdict.degraded


def _told(verdict: Verdict, run_manager: CallbackManagerForLLMRun | None) -> Verdict:
    if _is_judged(verdict):
        emit_verdict(verdict, run_manager)
    return verdict


def _sync(run_manager: AsyncCallbackManagerForLLMRun | None) -> CallbackManagerForLLMRun | None:
    return run_manager.get_sync() if run_manager else None


def _announced(verdict: Verdict) -> Iterator[ChatGenerationChunk]:
    if _is_judged(verdict):
        yield ChatGenerationChunk(message=verdict_chunk(verdict))


def _with_verdicts(result: ChatResult, verdicts: list[Verdict]) -> ChatResult:
    made = to_metadata(verdict for verdict in verdicts if _is_judged(verdict))
    generations = [
        generation.model_copy(
            update={
                "message": generation.message.model_copy(
                    update={"response_metadata": generation.message.response_metadata | made}
                )
            }
        )
        for generation in result.generations
    ]
    return ChatResult(generations=generations, llm_output=result.llm_output)


def _as_chunk(result: ChatResult) -> ChatGenerationChunk:
    """Return a whole answer as the one chunk of its stream."""
    message = result.generations[0].message
    fields = message.model_dump(exclude={"type", "tool_calls", "invalid_tool_calls"})
    calls = [
        {"name": c["name"], "args": json.dumps(c["args"]), "id": c["id"], "index": i}
        for i, c in enumerate(getattr(message, "tool_calls", []))
    ]
    chunk = AIMessageChunk(**fields, tool_call_chunks=calls, chunk_position="last")
    return ChatGenerationChunk(message=chunk, generation_info=result.generations[0].generation_info)
