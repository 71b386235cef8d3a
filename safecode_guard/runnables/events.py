"""Verdict events: told to LangChain callbacks, and to LangGraph's stream where there is one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    CallbackManager,
    dispatch_custom_event,
)

from safecode_guard.taxonomy import severity
from safecode_guard.verdict import CLOSED_EVENT, EVENT_NAME, Verdict

if TYPE_CHECKING:
    from langchain_core.callbacks import CallbackManagerForLLMRun

_TRACER: Final = "langchain_core.tracers.langchain"

current_run: ContextVar[tuple[CallbackManager, UUID] | None] = ContextVar(
    "safecode_guard_run", default=None
)
"""The run of the call in progress, where LangChain hands a model no run manager (streams)."""


def emit_verdict(verdict: Verdict, run_manager: CallbackManagerForLLMRun | None = None) -> None:
    """Send a verdict as the custom event ``safecode.verdict`` on the run it belongs to.

    With what became of its answer it is sent as ``safecode.verdict.closed``, so that whoever
    listens to verdicts hears of each once.
    Without a run (a bare call outside any chain) there is nobody to tell; the message carries the
    verdict all the same.
    """
    name, payload = CLOSED_EVENT if verdict.closed else EVENT_NAME, verdict.to_json()
    run = current_run.get() if run_manager is None else run_by(run_manager)
    if run is not None:
        run[0].on_custom_event(name, payload, run_id=run[1])
        _note_in_trace(verdict, *run)
    else:
        with suppress(RuntimeError):  # no run to dispatch on
            dispatch_custom_event(name, payload)
    _write_to_graph({name: payload})


def _note_in_trace(verdict: Verdict, manager: CallbackManager, run_id: UUID) -> None:
    """Put the outcome, and no content, into the run's metadata where LangSmith traces it.

    Of several verdicts at one stage the gravest stays.
    """
    if _TRACER not in sys.modules:  # who traces has imported it
        return
    from langchain_core.tracers.langchain import LangChainTracer

    for handler in manager.handlers:
        if not isinstance(handler, LangChainTracer):
            continue
        traced = handler.run_map.get(str(run_id))
        if traced is None:
            continue
        noted = f"safecode_{verdict.stage}"
        before = traced.metadata.get(f"{noted}_action")
        if before is None or severity(verdict.action) >= severity(before):
            outcome = {
                "label": verdict.label,
                "action": verdict.action,
                "p_unsafe": verdict.p_unsafe,
                "judge": verdict.judge.id if verdict.judge else None,
                "degraded": verdict.degraded,
            }
            traced.add_metadata({f"{noted}_{name}": value for name, value in outcome.items()})


def run_by(run_manager: CallbackManagerForLLMRun) -> tuple[CallbackManager, UUID]:
    """Return the run that a run manager stands for."""
    manager = CallbackManager(
        handlers=run_manager.handlers,
        inheritable_handlers=run_manager.inheritable_handlers,
        parent_run_id=run_manager.run_id,
        tags=run_manager.tags,
        metadata=run_manager.metadata,
    )
    return manager, run_manager.run_id


def _write_to_graph(payload: dict[str, Any]) -> None:
    """Write a verdict, under its event's name, to LangGraph's custom stream in a graph's node."""
    if "langgraph.config" not in sys.modules:
        return
    from langgraph.config import get_stream_writer

    try:
        writer = get_stream_writer()
    except (RuntimeError, KeyError):  # outside of a graph
        return
    writer(payload)


class VerdictHandler(BaseCallbackHandler):
    """Calls a function with every verdict; hand it to a chain's ``callbacks``.

    A handler observes and never enforces: LangChain swallows its exceptions.

    Example:
        >>> seen = []
        >>> chain.invoke(messages, {"callbacks": [VerdictHandler(seen.append)]})  # doctest: +SKIP
    """

    def __init__(
        self,
        on_verdict: Callable[[Verdict], Any],
        *,
        on_closed: Callable[[Verdict], Any] | None = None,
    ) -> None:
        """Take what is called with verdicts, and with those of steered turns once more, closed."""
        self._told = {EVENT_NAME: on_verdict, CLOSED_EVENT: on_closed}

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Pass verdict events on."""
        if tell := self._told.get(name):
            tell(Verdict.model_validate(data))


class AsyncVerdictHandler(AsyncCallbackHandler):
    """Awaits a coroutine function with every verdict; see `VerdictHandler`."""

    def __init__(
        self,
        on_verdict: Callable[[Verdict], Any],
        *,
        on_closed: Callable[[Verdict], Any] | None = None,
    ) -> None:
        """Take what is awaited with verdicts, and with those of steered turns once more, closed."""
        self._told = {EVENT_NAME: on_verdict, CLOSED_EVENT: on_closed}

    async def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Pass verdict events on."""
        if tell := self._told.get(name):
            await tell(Verdict.model_validate(data))
