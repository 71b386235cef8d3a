"""An engine that is another chat model: it can be called, and not steered.

The model behind is called through its public methods, so that its own callbacks, rate limiter,
cache and tracing live. It is given messages made again from what was judged, and nothing of the
outer run: what it writes must not get out before its verdict.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.tracers.context import _configure_hooks

from safecode_guard.engines import late
from safecode_guard.errors import LogitsUnavailable
from safecode_guard.models.families import GENERIC, Family
from safecode_guard.models.protocol import (
    Abilities,
    Delta,
    Job,
    LabelScores,
    Question,
    Sampling,
    Tool,
)
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.rebuild import rebuild
from safecode_guard.turns.turn import Turn

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from PIL import Image

_NO_STREAM_TAG: Final = "nostream"  # LangGraph leaves runs with this tag out of its message stream


class DelegateEngine:
    """Any LangChain chat model as an engine without abilities.

    Example:
        >>> DelegateEngine(init_chat_model("...")).abilities.steers     # doctest: +SKIP
        False
    """

    vocabulary = None

    def __init__(self, model: BaseChatModel, images: ImagePolicy | None = None) -> None:
        """Take the model, and the policy by which pictures in its answers are read."""
        self.model = model
        self.images = images or ImagePolicy()

    @property
    def id(self) -> str:
        """The model's type."""
        return self.model._llm_type

    @property
    def family(self) -> Family:
        """Nothing is known of it."""
        return GENERIC

    @property
    def abilities(self) -> Abilities:
        """None, and pictures reach it as files."""
        return Abilities(takes_files=True)

    def open(
        self, turns: Sequence[Turn], sampling: Sampling, *, tools: Sequence[Tool] = ()
    ) -> DelegateSession:
        """Return a session; sampling and tools reach the model as options of each job."""
        return DelegateSession(self.model, self.images)

    def batch_key(self, turn: Turn, sampling: Sampling, tools: Sequence[Tool]) -> str:
        """Return a key of its own for each turn: calls are made one by one."""
        return str(id(turn))

    def working_size(self, image: Image.Image) -> tuple[int, int]:
        """Return the picture's own size: what becomes of it is not known."""
        return image.size


@dataclass(frozen=True)
class DelegateSession:
    """Calls of a chat model, one for each job."""

    model: BaseChatModel
    images: ImagePolicy

    def ask(self, questions: Sequence[Question]) -> list[LabelScores]:
        """Not possible: the model's scores are out of reach."""
        raise LogitsUnavailable(
            f"{type(self.model).__name__} gives no access to its scores.",
            hint="Let another judge look, e.g. ChatJudge.",
        )

    def answer(self, jobs: Sequence[Job]) -> Generator[Delta]:
        """Call the model for each job; a call that fails is the error of its job."""
        for job in jobs:
            try:
                if job.live:
                    yield from self._streamed(job)
                else:
                    work = partial(self._called(job).invoke, rebuild(job.turn), **_call(job))
                    with _unheard(job):
                        message = late.call(job.deadline, work)
                    yield self._last(job, message)
            except Exception as error:  # providers raise errors of their own kinds
                yield Delta(job.index, error=error)

    async def aanswer(self, jobs: Sequence[Job]) -> AsyncGenerator[Delta]:
        """Call the model on the event loop; see `answer`."""
        for job in jobs:
            try:
                messages = await asyncio.to_thread(rebuild, job.turn)
                if job.live:
                    async with aclosing(self._astreamed(job, messages)) as deltas:
                        async for delta in deltas:
                            yield delta
                else:
                    with _unheard(job):
                        work = self._called(job).ainvoke(messages, **_call(job))
                        message = await late.acall(job.deadline, work)
                    yield self._last(job, message)
            except Exception as error:  # providers raise errors of their own kinds
                yield Delta(job.index, error=error)

    def close(self) -> None:
        """Free nothing: calls hold nothing between them."""

    def _streamed(self, job: Job) -> Generator[Delta]:
        whole: AIMessageChunk | None = None
        make = cast(
            "Callable[[], Generator[BaseMessage]]",
            partial(self.model.stream, rebuild(job.turn), **_call(job)),
        )
        with closing(late.pieces(job.deadline, make)) as chunks:
            for chunk in chunks:
                if not isinstance(chunk, AIMessageChunk):  # the model cannot stream: all at once
                    yield self._last(job, chunk)
                    return
                whole = _added(whole, chunk)
                yield _piece(job, chunk)
        yield self._last(job, _whole(whole))

    async def _astreamed(self, job: Job, messages: list[BaseMessage]) -> AsyncGenerator[Delta]:
        whole: AIMessageChunk | None = None
        stream = cast("AsyncGenerator[BaseMessage]", self.model.astream(messages, **_call(job)))
        async with aclosing(stream) as chunks:
            async for chunk in late.apieces(job.deadline, chunks):
                if not isinstance(chunk, AIMessageChunk):
                    yield self._last(job, chunk)
                    return
                whole = _added(whole, chunk)
                yield _piece(job, chunk)
        yield self._last(job, _whole(whole))

    def _called(self, job: Job) -> BaseChatModel:
        """Return the model; without its cache where the answer may be withheld."""
        return self.model.model_copy(update={"cache": False}) if job.held else self.model

    def _last(self, job: Job, message: BaseMessage) -> Delta:
        read: Callable[[], Turn] = partial(read_turn, [message], self.images)
        text = "" if job.live else str(message.text)
        return Delta(job.index, text, "stop", native=_own(message), read=read)


@contextmanager
def _unheard(job: Job) -> Iterator[None]:
    """Keep LangChain's collectors of runs and counts out of a call that may be withheld.

    They are no callbacks of a config: each finds its own way into every run of the context.
    """
    kept = [var for var, *_ in _configure_hooks if var.get() is not None] if job.held else []
    tokens = [(var, var.set(None)) for var in kept]
    try:
        yield
    finally:
        for var, token in tokens:
            var.reset(token)


def _call(job: Job) -> dict[str, Any]:
    """Return the arguments of a call: an empty list of callbacks, so that none is inherited."""
    config: RunnableConfig = {
        "callbacks": [],
        "tags": [_NO_STREAM_TAG],
        "metadata": {"safecode": "guarded"},
        "run_name": "safecode_guarded",
    }
    return {"config": config, **job.options}


def _added(whole: AIMessageChunk | None, chunk: AIMessageChunk) -> AIMessageChunk:
    return chunk if whole is None else whole + chunk


def _whole(chunks: AIMessageChunk | None) -> BaseMessage:
    return AIMessage("") if chunks is None else message_chunk_to_message(chunks)


def _piece(job: Job, chunk: AIMessageChunk) -> Delta:
    return Delta(job.index, str(chunk.text), native=_own(chunk))


def _own(message: BaseMessage) -> BaseMessage:
    """Return a message without the id of the inner run, which is nobody's business."""
    if not (message.id or "").startswith("lc_run-"):
        return message
    return message.model_copy(update={"id": None})
