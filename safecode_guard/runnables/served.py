"""LangChain's calls onto a pipeline: invoke, stream, batch, and their async forms.

`ChatTransformers` and `SafeCoDeGuard` differ in the pipeline behind them and in nothing here.
"""

from __future__ import annotations

import asyncio
import contextvars
from abc import abstractmethod
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import closing
from contextvars import ContextVar
from typing import Any, Protocol

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.runnables.config import (
    ContextThreadPoolExecutor,
    get_callback_manager_for_config,
    get_config_list,
)
from langchain_core.utils.uuid import uuid7

from safecode_guard.errors import GuardError
from safecode_guard.pipeline import TurnEvent, TurnRequest, TurnResult
from safecode_guard.runnables.events import current_run
from safecode_guard.runnables.messages import (
    AnswerShape,
    VisibleText,
    answer_message,
    final_chunk,
    verdict_chunk,
)
from safecode_guard.runnables.rendezvous import Rendezvous
from safecode_guard.verdict import Verdict


class Served(Protocol):
    """A pipeline as the chat models use it."""

    def run(self, requests: Sequence[TurnRequest]) -> list[TurnResult | GuardError]:
        """Answer turns, in order."""

    def stream(self, requests: Sequence[TurnRequest]) -> Generator[tuple[int, TurnEvent]]:
        """Answer turns and yield what happens to them, with the index of their turn."""


class _Ticket:
    """One caller's place in a batch; used at most once."""

    def __init__(self, owner: object, group: Rendezvous[TurnRequest, TurnResult]) -> None:
        self.owner = owner
        self.group = group
        self.used = False


_ticket: ContextVar[_Ticket | None] = ContextVar("safecode_guard_ticket", default=None)


class ServedChatModel(BaseChatModel):
    """A chat model whose answers come from a pipeline."""

    max_batch: int = 8
    """Turns that ``batch`` decodes together."""

    @abstractmethod
    def _pipeline(self) -> Served:
        """Return the pipeline; loads weights on first use."""

    @abstractmethod
    def _request(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: CallbackManagerForLLMRun | None,
        options: dict[str, Any],
    ) -> tuple[TurnRequest, AnswerShape]:
        """Return what is asked of the pipeline, and the shape its answer is given in."""

    async def _arequest(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: CallbackManagerForLLMRun | None,
        options: dict[str, Any],
    ) -> tuple[TurnRequest, AnswerShape]:
        """Prepare a request without blocking the event loop (images are decoded here)."""
        return await asyncio.to_thread(self._request, messages, stop, run_manager, options)

    # -- one answer ---------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request, shape = self._request(messages, stop, run_manager, kwargs)
        ticket = self._own_ticket()
        if ticket is None:
            result = _value(self._pipeline().run([request])[0])
        else:
            future, last = ticket.group.submit(request)
            if last:
                ticket.group.run_all()
            result = future.result()
        return _chat_result(answer_message(result, shape))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        manager = run_manager.get_sync() if run_manager else None
        request, shape = await self._arequest(messages, stop, manager, kwargs)
        ticket = self._own_ticket()
        try:
            if ticket is None:
                result = _value((await asyncio.to_thread(self._run_one, request))[0])
            else:
                future, last = ticket.group.submit(request)
                if last:
                    await asyncio.to_thread(ticket.group.run_all)
                result = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            request.cancelled.set()
            raise
        return _chat_result(answer_message(result, shape))

    def _run_one(self, request: TurnRequest) -> list[TurnResult | GuardError]:
        return self._pipeline().run([request])

    def _own_ticket(self) -> _Ticket | None:
        ticket = _ticket.get()
        if ticket is None or ticket.owner is not self or ticket.used:
            return None
        ticket.used = True
        return ticket

    # -- streams ------------------------------------------------------------------------------

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request, shape = self._request(messages, stop, run_manager, kwargs)
        for chunk in self._chunks(request, shape):
            if run_manager and chunk.text:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        manager = run_manager.get_sync() if run_manager else None
        request, shape = await self._arequest(messages, stop, manager, kwargs)
        chunks = self._chunks(request, shape)
        try:
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                if run_manager and chunk.text:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        finally:
            request.cancelled.set()
            await asyncio.shield(asyncio.to_thread(chunks.close))

    def _chunks(self, request: TurnRequest, shape: AnswerShape) -> Generator[ChatGenerationChunk]:
        """Yield the answer as chunks: verdicts, text, then one closing chunk."""
        visible = shape.text_filter()
        with closing(self._pipeline().stream([request])) as events:
            for _, event in events:
                if isinstance(event, GuardError):
                    raise event
                if isinstance(event, Verdict):
                    yield _chunk(verdict_chunk(event))
                elif isinstance(event, TurnResult):
                    yield from _ending(event, shape, visible)
                elif text := visible.push(event):
                    yield _chunk(AIMessageChunk(content=text))

    def stream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Stream an answer; the run is remembered, since core hands streams no run manager."""
        config, run = _remembered(config)
        chunks = super().stream(input, config, stop=stop, **kwargs)
        try:
            while True:
                token = current_run.set(run)
                try:
                    chunk = next(chunks)
                except StopIteration:
                    return
                finally:
                    current_run.reset(token)
                yield chunk
        finally:
            chunks.close()  # type: ignore[attr-defined]

    async def astream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Stream an answer asynchronously; see `stream`."""
        config, run = _remembered(config)
        chunks = super().astream(input, config, stop=stop, **kwargs)
        try:
            while True:
                token = current_run.set(run)
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
                finally:
                    current_run.reset(token)
                yield chunk
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]

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

        def one(ticket: _Ticket, input_: Any, config: RunnableConfig) -> Any:
            token = _ticket.set(ticket)
            try:
                return self.invoke(input_, config, **kwargs)
            except Exception as error:
                if not return_exceptions:
                    raise
                return error
            finally:
                _ticket.reset(token)
                if not ticket.used and ticket.group.leave():
                    ticket.group.run_all()

        outputs: list[Any] = []
        for part, configs in self._parts(inputs, config):
            tickets = self._tickets(len(part))
            with ContextThreadPoolExecutor(max_workers=len(part)) as executor:
                outputs += executor.map(one, tickets, part, configs)
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

        async def one(ticket: _Ticket, input_: Any, config: RunnableConfig) -> Any:
            _ticket.set(ticket)  # gather gives each coroutine a context of its own
            try:
                return await self.ainvoke(input_, config, **kwargs)
            finally:
                if not ticket.used and ticket.group.leave():
                    await asyncio.to_thread(ticket.group.run_all)

        outputs: list[Any] = []
        for part, configs in self._parts(inputs, config):
            calls = map(one, self._tickets(len(part)), part, configs)
            outputs += await asyncio.gather(*calls, return_exceptions=True)
        for error in outputs:
            fatal = isinstance(error, BaseException) and not isinstance(error, Exception)
            if fatal or (isinstance(error, Exception) and not return_exceptions):
                raise error
        return outputs

    def _parts(
        self, inputs: list[Any], config: RunnableConfig | list[RunnableConfig] | None
    ) -> Iterator[tuple[list[Any], list[RunnableConfig]]]:
        if not inputs:
            return
        configs = get_config_list(config, len(inputs))
        size = min(self.max_batch, configs[0].get("max_concurrency") or self.max_batch)
        for start in range(0, len(inputs), size):
            yield inputs[start : start + size], configs[start : start + size]

    def _tickets(self, size: int) -> list[_Ticket]:
        group: Rendezvous[TurnRequest, TurnResult] = Rendezvous(
            size, lambda requests: self._pipeline().run(requests)
        )
        return [_Ticket(self, group) for _ in range(size)]


def in_this_context(function: Any) -> Any:
    """Return the function bound to the caller's context variables.

    A batch tells verdicts from whichever thread runs it; handlers and graph writers are found
    through the context of the call that the verdict belongs to.
    """
    context = contextvars.copy_context()
    return lambda *args: context.copy().run(function, *args)


def _remembered(config: RunnableConfig | None) -> tuple[RunnableConfig, Any]:
    config = ensure_config(config)
    run_id = config.get("run_id") or uuid7()
    config["run_id"] = run_id
    return config, (get_callback_manager_for_config(config), run_id)


def _value(result: TurnResult | GuardError) -> TurnResult:
    if isinstance(result, GuardError):
        raise result
    return result


def _chat_result(message: AIMessage) -> ChatResult:
    info = {"finish_reason": message.response_metadata.get("finish_reason")}
    return ChatResult(generations=[ChatGeneration(message=message, generation_info=info)])


def _chunk(message: AIMessageChunk, **info: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=message, **info)


def _ending(
    result: TurnResult, shape: AnswerShape, visible: VisibleText
) -> Iterator[ChatGenerationChunk]:
    """Yield what is left to show of an answer, then its closing chunk."""
    if rest := result.text if result.withheld else visible.rest(result):
        yield _chunk(AIMessageChunk(content=rest))
    yield _chunk(final_chunk(result, shape), generation_info={"finish_reason": result.finish})
