"""LangChain's calls onto the guarded turn: invoke, stream, batch, and their async forms.

Chat models and the guard differ in what serves their turns and in nothing here.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.base import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.prompt_values import ChatPromptValue, PromptValue
from langchain_core.runnables import RunnableConfig
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from safecode_guard.pipeline.guarded import GuardedTurns
from safecode_guard.pipeline.host import EventLoop
from safecode_guard.pipeline.requests import TurnEvent, TurnRequest, TurnResult
from safecode_guard.runnables import batching
from safecode_guard.runnables.arguments import STANDARD, require_known
from safecode_guard.runnables.messages import AnswerShape, AnswerStream, chat_result
from safecode_guard.runnables.runs import ain_run, in_run, in_run_of, remembered
from safecode_guard.turns.inlining import with_bytes

WORKERS = 8
"""Threads for what blocks in async calls: reading pictures, decoding."""


@dataclass(frozen=True)
class Call:
    """One call as LangChain makes it."""

    stop: list[str] | None
    options: dict[str, Any]
    run_manager: CallbackManagerForLLMRun | None = None
    live: bool = False
    """Somebody reads the answer piece by piece."""
    started: float = field(default_factory=time.monotonic)
    cancelled: Event = field(default_factory=Event)


class _WithBytes(ChatPromptValue):
    """Messages whose pictures in memory have become bytes already."""


class ServedChatModel(BaseChatModel):
    """A chat model whose answers come from the guarded turn."""

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    streaming: bool = False
    """Make every answer as a stream, ``invoke``'s too, for handlers that show tokens."""
    max_batch: int = Field(default=8, gt=0)
    """Turns that ``batch`` decodes together."""

    _workers: Any = PrivateAttr(
        default_factory=lambda: ThreadPoolExecutor(WORKERS, thread_name_prefix="safecode")
    )

    _aside: set[Any] = PrivateAttr(default_factory=set)

    @model_validator(mode="before")
    @classmethod
    def _known_arguments(cls, values: Any) -> Any:
        """Refuse arguments that no field has; LangChain's standard ones are let be."""
        if not isinstance(values, dict):
            return values
        aliases = {f.alias for f in cls.model_fields.values() if f.alias}
        require_known(cls.__name__, values, {*cls.model_fields, *aliases, *STANDARD})
        return values

    @property
    @abstractmethod
    def _turns(self) -> GuardedTurns:
        """What serves the turns; loads weights on first use."""

    @property
    def _batches(self) -> bool:
        """Whether turns that are decoded together cost less than one by one."""
        return True

    @abstractmethod
    def _request(self, messages: list[BaseMessage], call: Call) -> tuple[TurnRequest, AnswerShape]:
        """Return what is asked, and the shape the answer is given in; reads pictures."""

    # -- messages -----------------------------------------------------------------------------

    def _convert_input(self, model_input: LanguageModelInput) -> PromptValue:
        """Return the messages with bytes for pictures in memory: LangChain's cache keys by them."""
        if isinstance(model_input, _WithBytes):
            return model_input
        return _WithBytes(messages=with_bytes(super()._convert_input(model_input).to_messages()))

    def generate(self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        """Answer conversations one by one; see `BaseChatModel.generate`."""
        return super().generate([with_bytes(each) for each in messages], *args, **kwargs)

    async def agenerate(
        self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any
    ) -> LLMResult:
        """Answer conversations on the event loop; see `BaseChatModel.agenerate`."""
        inlined = [await self._host().call(partial(with_bytes, each)) for each in messages]
        return await super().agenerate(inlined, *args, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answer on the event loop; pictures in memory are written as bytes beside it."""
        value = await self._host().call(partial(self._convert_input, input))
        return await super().ainvoke(value, config, stop=stop, **kwargs)

    # -- runs: core hands `_stream` no run manager, not even where it stands in for `_generate` --

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with in_run_of(run_manager):
            return super()._generate_with_cache(messages, stop, run_manager, **kwargs)

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with in_run_of(run_manager.get_sync() if run_manager else None):
            return await super()._agenerate_with_cache(messages, stop, run_manager, **kwargs)

    # -- one answer ---------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request, shape = self._request(messages, Call(stop, kwargs, run_manager))
        ticket = batching.own_ticket(self)
        if ticket is None:
            return chat_result(_value(self._turns.run([request])[0]), shape)
        future, last = ticket.group.submit(request)
        if last:
            ticket.run_all()
        return chat_result(future.result(), shape)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = Call(stop, kwargs, run_manager.get_sync() if run_manager else None)
        host = self._host(call)
        turns, request, shape = await host.call(partial(self._prepared, messages, call))
        ticket = batching.own_ticket(self)
        if ticket is None:
            return chat_result(await _result(turns, request, host), shape)
        future, last = ticket.group.submit(request)
        if last:  # in a task of its own: if this caller goes, the others must still be served
            self._run_aside(ticket.arun_all(self._host()))
        try:
            return chat_result(await asyncio.wrap_future(future), shape)
        except asyncio.CancelledError:
            call.cancelled.set()
            raise

    def _prepared(
        self, messages: list[BaseMessage], call: Call
    ) -> tuple[GuardedTurns, TurnRequest, AnswerShape]:
        """Return what serves the call, and what is asked: all that blocks before a turn."""
        return self._turns, *self._request(messages, call)

    def _run_aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    def _host(self, call: Call | None = None) -> EventLoop:
        return EventLoop(self._workers, call.cancelled if call else None)

    # -- streams ------------------------------------------------------------------------------

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request, shape = self._request(messages, Call(stop, kwargs, run_manager, live=True))
        for chunk in self._chunks(request, shape):
            if run_manager and chunk.text:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _chunks(self, request: TurnRequest, shape: AnswerShape) -> Generator[ChatGenerationChunk]:
        """Yield the answer as chunks: verdicts, text, then one closing chunk."""
        stream = AnswerStream(shape)
        with closing(self._turns.events([request])) as events:
            for _, event in events:
                yield from stream.chunks(event)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        manager = run_manager.get_sync() if run_manager else None
        call = Call(stop, kwargs, manager, live=True)
        async with aclosing(self._achunks(messages, call)) as chunks:
            async for chunk in chunks:
                if run_manager and chunk.text:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _achunks(
        self, messages: list[BaseMessage], call: Call
    ) -> AsyncGenerator[ChatGenerationChunk]:
        host = self._host(call)
        turns, request, shape = await host.call(partial(self._prepared, messages, call))
        stream = AnswerStream(shape)
        async with aclosing(turns.stream([request], host)) as events:
            async for _, event in events:
                for chunk in stream.chunks(event):
                    yield chunk

    def stream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Stream an answer; the run is remembered, since core hands streams no run manager."""
        config, run = remembered(config)
        yield from in_run(super().stream(input, config, stop=stop, **kwargs), run)

    async def astream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Stream an answer asynchronously; see `stream`."""
        config, run = remembered(config)
        value = await self._host().call(partial(self._convert_input, input))
        chunks = super().astream(value, config, stop=stop, **kwargs)
        async with aclosing(ain_run(chunks, run)) as remembering:
            async for chunk in remembering:
                yield chunk

    # -- batches ------------------------------------------------------------------------------

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Answer several inputs, ``max_batch`` at a time as one batch of rows.

        Callbacks, caches and errors stay those of each input.
        """
        if not self._batches:
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        outputs: list[Any] = []
        for part, configs in batching.parts(inputs, config, most=self.max_batch):
            outputs += batching.batched(
                self,
                self._turns,
                part,
                configs,
                return_exceptions=return_exceptions,
                options=kwargs,
            )
        return outputs

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Answer several inputs asynchronously; see `batch`."""
        if not self._batches:
            return await super().abatch(
                inputs, config, return_exceptions=return_exceptions, **kwargs
            )
        host = self._host()
        turns = await host.call(lambda: self._turns)
        outputs: list[Any] = []
        for part, configs in batching.parts(inputs, config, most=self.max_batch):
            outputs += await batching.abatched(self, turns, host, part, configs, options=kwargs)
        for error in outputs:
            fatal = isinstance(error, BaseException) and not isinstance(error, Exception)
            if fatal or (isinstance(error, Exception) and not return_exceptions):
                raise error
        return outputs


async def _result(turns: GuardedTurns, request: TurnRequest, host: EventLoop) -> TurnResult:
    end: TurnEvent | None = None
    async with aclosing(turns.stream([request], host)) as events:
        async for _, event in events:
            end = event
    return _value(end)


def _value(end: TurnEvent | None) -> TurnResult:
    """Return the result that ended a turn.

    Raises:
        Exception: The error that ended it instead.
    """
    if isinstance(end, Exception):
        raise end
    assert isinstance(end, TurnResult)
    return end
