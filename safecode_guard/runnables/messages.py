"""From a turn's result to LangChain messages and chunks."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, invalid_tool_call, tool_call
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from safecode_guard.output.tools import OPENING, ParsedAnswer, parse_answer
from safecode_guard.pipeline.requests import TurnEvent, TurnResult
from safecode_guard.verdict import METADATA_KEY, Verdict, to_closing, to_metadata

PROVIDER = "safecode_guard"


@dataclass(frozen=True)
class AnswerShape:
    """The form in which an answer is given."""

    model_name: str
    tools: tuple[str, ...] = ()
    """Names of the tools that may be called in the text."""
    forced_tool: bool = False
    """The text is a tool call, by grammar."""

    def parse(self, result: TurnResult) -> ParsedAnswer:
        """Return text and tool calls of an answer; the guard's own text is never parsed."""
        if result.withheld or not self.tools:
            return ParsedAnswer(result.text)
        return parse_answer(result.text, forced=self.forced_tool, names=self.tools)

    def text_filter(self) -> VisibleText:
        """Return the filter that keeps tool calls out of streamed text."""
        return VisibleText(self)


class VisibleText:
    """Lets text through until a tool call begins; the call itself goes out whole at the end."""

    def __init__(self, shape: AnswerShape) -> None:
        self._shape = shape
        self._pending = ""
        self._shown = ""
        self._closed = shape.forced_tool

    def push(self, piece: str) -> str:
        """Return what may be shown now of the text so far."""
        if not self._shape.tools:
            self._shown += piece
            return piece
        self._pending += piece
        if self._closed:
            return ""
        at = self._pending.find(OPENING)
        self._closed = at >= 0
        end = at if self._closed else len(self._pending) - _possible_opening(self._pending)
        shown, self._pending = self._pending[:end], self._pending[end:]
        self._shown += shown
        return shown

    def rest(self, result: TurnResult) -> str:
        """Return the visible text that was held back and is no tool call after all."""
        content = self._shape.parse(result).text
        return content[len(self._shown) :] if content.startswith(self._shown) else ""


def answer_message(result: TurnResult, shape: AnswerShape) -> AIMessage:
    """Return an answer as one message, with its verdicts, tool calls and usage."""
    if result.native is not None and not result.withheld:
        return _with_verdicts(result.native, result.verdicts)
    answer = shape.parse(result)
    return AIMessage(
        content=answer.text,
        additional_kwargs=_refusal(answer),
        tool_calls=[tool_call(name=c.name, args=c.arguments, id=_call_id()) for c in answer.calls],
        invalid_tool_calls=[
            invalid_tool_call(name=bad.name, args=bad.text, id=_call_id(), error=bad.error)
            for bad in answer.invalid
        ],
        response_metadata=_metadata(result, shape)
        | (to_metadata(result.verdicts) if result.verdicts else {}),
        usage_metadata=_usage(result),
    )


def chat_result(result: TurnResult, shape: AnswerShape) -> ChatResult:
    """Return an answer in the form in which LangChain's models give theirs."""
    message = answer_message(result, shape)
    info = {"finish_reason": message.response_metadata.get("finish_reason")}
    return ChatResult(generations=[ChatGeneration(message=message, generation_info=info)])


class AnswerStream:
    """Turns what happens to one turn into chunks: verdicts, text, then one closing chunk."""

    def __init__(self, shape: AnswerShape) -> None:
        self._shape = shape
        self._visible = shape.text_filter()
        self._native = False
        self._begun = False
        self._verdicts: dict[str, Verdict] = {}

    def chunks(self, event: TurnEvent) -> Iterator[ChatGenerationChunk]:
        """Return the chunks that an event gives.

        Raises:
            Exception: The error that ended the turn.
        """
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Verdict):
            self._verdicts[event.id] = event  # of one told twice before any text, the later form
            return
        if self._verdicts and not (self._begun and isinstance(event, TurnResult)):
            # on one chunk: readers of events keep the last of two
            yield ChatGenerationChunk(message=verdict_chunk(tuple(self._verdicts.values())))
            self._verdicts = {}
        self._begun = True
        if isinstance(event, TurnResult):
            yield from self._ending(event)
        elif event.native is not None:
            self._native = True
            yield ChatGenerationChunk(message=event.native)
        elif text := self._visible.push(event.text):
            yield ChatGenerationChunk(message=AIMessageChunk(content=text))

    def _ending(self, result: TurnResult) -> Iterator[ChatGenerationChunk]:
        """Yield what is left to show of an answer, then its closing chunk."""
        if result.native is not None and not result.withheld:
            if not self._native:
                yield ChatGenerationChunk(message=whole_chunk(result.native))
            return
        if rest := result.text if result.withheld else self._visible.rest(result):
            yield ChatGenerationChunk(message=AIMessageChunk(content=rest))
        info = {"finish_reason": result.finish}
        final = final_chunk(result, self._shape, tuple(self._verdicts.values()))
        yield ChatGenerationChunk(message=final, generation_info=info)


def whole_chunk(message: AIMessage) -> AIMessageChunk:
    """Return a whole message as the one chunk of its stream."""
    fields = message.model_dump(exclude={"type", "tool_calls", "invalid_tool_calls"})
    read = [(call["name"], json.dumps(call["args"]), call["id"]) for call in message.tool_calls]
    unread = [
        (call["name"], _unread(call["args"] or ""), call["id"])
        for call in message.invalid_tool_calls
    ]
    return AIMessageChunk(
        **fields, tool_call_chunks=_call_chunks([*read, *unread]), chunk_position="last"
    )


def verdict_chunk(verdicts: Sequence[Verdict]) -> AIMessageChunk:
    """Return the one chunk that carries verdicts: first, and without text."""
    return AIMessageChunk(content="", response_metadata=to_metadata(verdicts))


def final_chunk(
    result: TurnResult, shape: AnswerShape, closed: Sequence[Verdict] = ()
) -> AIMessageChunk:
    """Return the closing chunk: tool calls, usage, finish reason, verdicts that were closed."""
    answer = shape.parse(result)
    read = [
        (call.name, json.dumps(call.arguments, ensure_ascii=False), _call_id())
        for call in answer.calls
    ]
    unread = [(bad.name, _unread(bad.text), _call_id()) for bad in answer.invalid]
    return AIMessageChunk(
        content="",
        additional_kwargs=_refusal(answer),
        tool_call_chunks=_call_chunks([*read, *unread]),
        response_metadata=_metadata(result, shape) | (to_closing(closed) if closed else {}),
        usage_metadata=_usage(result),
        chunk_position="last",
    )


def _call_chunks(calls: Sequence[tuple[str | None, str, str | None]]) -> list[ToolCallChunk]:
    """Return whole tool calls (name, arguments, id) as chunks."""
    return [
        ToolCallChunk(name=name, args=args, id=id_, index=i, type="tool_call_chunk")
        for i, (name, args, id_) in enumerate(calls)
    ]


def _unread(text: str) -> str:
    """Return an invalid call's text quoted: core would mend broken JSON into a valid call."""
    return json.dumps(text, ensure_ascii=False)


def _with_verdicts(message: AIMessage, verdicts: Sequence[Verdict]) -> AIMessage:
    if not verdicts:
        return message
    ours, given = to_metadata(verdicts), message.response_metadata.get(METADATA_KEY)
    if isinstance(given, list):  # of a guard within this one; streams join them as well
        ours[METADATA_KEY] += given
    metadata = message.response_metadata | ours
    return message.model_copy(update={"response_metadata": metadata})


def _refusal(answer: ParsedAnswer) -> dict[str, Any]:
    return {} if answer.refusal is None else {"refusal": answer.refusal}


def _metadata(result: TurnResult, shape: AnswerShape) -> dict[str, Any]:
    reason = "tool_calls" if shape.parse(result).calls else result.finish
    metadata: dict[str, Any] = {
        "finish_reason": reason,
        "model_name": shape.model_name,
        "model_provider": PROVIDER,
    }
    if result.trace:
        metadata["safecode_trace"] = [step.to_json() for step in result.trace]
    return metadata


def _usage(result: TurnResult) -> UsageMetadata:
    given, made = result.prompt_tokens, len(result.tokens)
    return UsageMetadata(input_tokens=given, output_tokens=made, total_tokens=given + made)


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:16]}"


def _possible_opening(text: str) -> int:
    """Return how many characters at the end of a text could begin a tool call."""
    sizes = range(min(len(OPENING) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(OPENING[:size])), 0)
