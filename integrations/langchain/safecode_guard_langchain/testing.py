"""A chat model that plays an agent by script: for tests and examples, without weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Annotated, Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import Field, PrivateAttr, SkipValidation

Reply = AIMessage | str | Exception


class ScriptedChatModel(BaseChatModel):
    """A chat model that answers by script.

    A list is answered in order: a conversation that holds n answers gets the one after them, so
    that it makes no difference how often a step is tried. A function answers by the messages. An
    exception is raised.

    Example:
        >>> model = ScriptedChatModel(replies=[calls(("stop", {})), "Stopped."])
        >>> model.invoke("Stop!").tool_calls[0]["name"]
        'stop'
    """

    replies: Annotated[Sequence[Reply] | Callable[[list[BaseMessage]], Reply], SkipValidation()] = (
        Field(exclude=True)
    )
    name_of_model: str = "scripted"

    _shown: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=Lock)

    @property
    def shown(self) -> list[list[BaseMessage]]:
        """What the model has been shown, call by call."""
        return self._shown

    @property
    def _llm_type(self) -> str:
        return self.name_of_model

    def bind_tools(
        self, tools: Sequence[Any], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model: the script knows which tools there are."""
        return self.bind(tools=[getattr(each, "name", each) for each in tools])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        reply = self._reply(messages)
        words = str(reply.content).split(" ") if isinstance(reply.content, str) else []
        pieces = [f"{word} " for word in words[:-1]] + words[-1:]
        for piece in pieces:
            yield self._chunk(AIMessageChunk(content=piece, id=reply.id), run_manager)
        last = AIMessageChunk(
            content="" if words else reply.content,
            id=reply.id,
            tool_call_chunks=[_chunk_of(call, i) for i, call in enumerate(reply.tool_calls)],
            response_metadata=reply.response_metadata,
            chunk_position="last",
        )
        yield self._chunk(last, run_manager)

    def _chunk(
        self, message: AIMessageChunk, run_manager: CallbackManagerForLLMRun | None
    ) -> ChatGenerationChunk:
        chunk = ChatGenerationChunk(message=message)
        if run_manager is not None:
            run_manager.on_llm_new_token(str(message.text), chunk=chunk)
        return chunk

    def _reply(self, messages: list[BaseMessage]) -> AIMessage:
        with self._lock:
            self._shown.append(messages)
        if callable(self.replies):
            reply = self.replies(messages)
        else:
            answered = sum(isinstance(message, AIMessage) for message in messages)
            reply = self.replies[min(answered, len(self.replies) - 1)]
        if isinstance(reply, Exception):
            raise reply
        return AIMessage(reply) if isinstance(reply, str) else reply.model_copy(deep=True)


def calls(*named: tuple[str, dict[str, Any]], say: str = "", first_id: str = "call") -> AIMessage:
    """Return an answer that calls tools, each with an id of its own.

    Example:
        >>> [call["id"] for call in calls(("look", {}), ("stop", {})).tool_calls]
        ['call-1', 'call-2']
    """
    made = [
        ToolCall(name=name, args=args, id=f"{first_id}-{number}", type="tool_call")
        for number, (name, args) in enumerate(named, 1)
    ]
    return AIMessage(content=say, tool_calls=made)


def results(messages: Sequence[BaseMessage]) -> dict[str, ToolMessage]:
    """Return the tool messages of a conversation by the id of their call."""
    return {m.tool_call_id: m for m in messages if isinstance(m, ToolMessage)}


def _chunk_of(call: ToolCall, index: int) -> Any:
    return tool_call_chunk(
        name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index
    )
