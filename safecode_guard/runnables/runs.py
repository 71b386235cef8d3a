"""The run that a call belongs to, where LangChain hands it over and where it does not."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.runnables.config import get_callback_manager_for_config
from langchain_core.utils.uuid import uuid7

from safecode_guard.pipeline.requests import Run
from safecode_guard.runnables.events import current_run, emit_verdict, run_by

T = TypeVar("T")


def run_of(manager: CallbackManagerForLLMRun | None) -> Run:
    """Return the run of a call: its id, and where its verdicts are told."""
    tell = in_this_context(partial(emit_verdict, run_manager=manager))
    if manager is not None:
        return Run(str(manager.run_id), tell)
    remembered = current_run.get()
    run_id = remembered[1] if remembered is not None else _surrounding_run()
    return Run(None if run_id is None else str(run_id), tell)


def _surrounding_run() -> UUID | None:
    """Return the id of the chain's run in which this is called, where custom events go to."""
    callbacks = ensure_config().get("callbacks")
    return getattr(callbacks, "parent_run_id", None)


def in_this_context(function: Any) -> Any:
    """Return the function bound to the caller's context variables.

    A batch tells verdicts from whichever thread runs it; handlers and graph writers are found
    through the context of the call that the verdict belongs to.
    """
    context = contextvars.copy_context()
    return lambda *args: context.copy().run(function, *args)


def in_run_of(manager: CallbackManagerForLLMRun | None) -> AbstractContextManager[None]:
    """Remember a run manager's run meanwhile."""
    return nullcontext() if manager is None else in_this_run(run_by(manager))


def remembered(config: RunnableConfig | None) -> tuple[RunnableConfig, Any]:
    """Return a config with a run id, and that run: core hands streams no run manager."""
    config = ensure_config(config)
    run_id = config.get("run_id") or uuid7()
    config["run_id"] = run_id
    return config, (get_callback_manager_for_config(config), run_id)


@contextmanager
def in_this_run(run: Any) -> Iterator[None]:
    """Remember a run meanwhile."""
    token = current_run.set(run)
    try:
        yield
    finally:
        current_run.reset(token)


def in_run(chunks: Iterator[T], run: Any) -> Generator[T]:
    """Yield chunks, each made with its run remembered."""
    try:
        while True:
            with in_this_run(run):
                try:
                    chunk = next(chunks)
                except StopIteration:
                    return
            yield chunk
    finally:
        chunks.close()  # type: ignore[attr-defined]


async def ain_run(chunks: AsyncIterator[T], run: Any) -> AsyncGenerator[T]:
    """Yield chunks asynchronously, each made with its run remembered."""
    try:
        while True:
            with in_this_run(run):
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
            yield chunk
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]
