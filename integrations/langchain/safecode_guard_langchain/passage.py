"""One run of a guarded tool whose call has passed: what it does, and what of it is let out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Annotated, Any, Final

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import Field, SkipValidation

from safecode_guard.pipeline.host import EventLoop, Host, ThisThread, run
from safecode_guard_langchain import results
from safecode_guard_langchain.gate import Call, Gate, Site
from safecode_guard_langchain.outcome import INVALID, Outcome

Manned = Sequence[tuple[Gate, Site]]

_FACE: Final = (
    "name", "description", "args_schema", "return_direct", "verbose", "callbacks", "tags",
    "metadata", "handle_tool_error", "handle_validation_error", "response_format", "extras",
)  # fmt: skip


def face_of(tool: BaseTool) -> dict[str, Any]:
    """Return what a tool shows of itself, for one that stands in its place."""
    return {name: getattr(tool, name) for name in _FACE}


class Passage(BaseTool):
    """One run of a tool whose call has passed: events, the tool, and its result judged."""

    inner: Annotated[BaseTool, SkipValidation()]
    call: Annotated[Any, SkipValidation()] = Field(exclude=True, repr=False)
    manned: Annotated[Any, SkipValidation()] = Field(exclude=True, repr=False)
    """The guards, each with its view of where the call is made."""
    workers: Annotated[Any, SkipValidation()] = Field(default=None, exclude=True, repr=False)

    @classmethod
    def of(cls, inner: BaseTool, call: Call, manned: Manned, workers: Any) -> Passage:
        """Return the run of a tool for a call."""
        return cls(inner=inner, call=call, manned=manned, workers=workers, **face_of(inner))

    @cached_property
    def _injected_args_keys(self) -> frozenset[str]:
        return self.inner._injected_args_keys

    def _to_args_and_kwargs(
        self, tool_input: str | dict[str, Any], tool_call_id: str | None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if _overrides_run(self.inner):
            return (), {_INPUT: tool_input}
        try:
            return self.inner._to_args_and_kwargs(tool_input, tool_call_id)
        except INVALID as error:
            return (), {_ERROR: error}

    def _run(
        self, *args: Any, config: RunnableConfig, run_manager: Any = None, **kwargs: Any
    ) -> Any:
        quiet = _overrides_run(self.inner)
        act: Callable[[], Any]
        if _ERROR in kwargs:
            act = partial(_raise, kwargs[_ERROR])
        elif quiet:
            act = partial(self.inner.invoke, self._whole(kwargs), {**config, "callbacks": []})
        else:
            more = _wanted(self.inner._run, config, run_manager)
            act = partial(self.inner._run, *args, **kwargs, **more)
        with self._scene():
            outcome = Outcome.of(act)
        return run(self._let_out(outcome, ThisThread(), formed=quiet))

    async def _arun(
        self, *args: Any, config: RunnableConfig, run_manager: Any = None, **kwargs: Any
    ) -> Any:
        quiet = _overrides_run(self.inner)
        act: Callable[[], Any]
        if _ERROR in kwargs:
            act = partial(_araise, kwargs[_ERROR])
        elif quiet:
            act = partial(self.inner.ainvoke, self._whole(kwargs), {**config, "callbacks": []})
        else:
            own = type(self.inner)._arun is not BaseTool._arun
            wanted = _wanted(self.inner._arun if own else self.inner._run, config, run_manager)
            act = partial(self.inner._arun, *args, **kwargs, **wanted)
        with self._scene():
            outcome = await Outcome.aof(act)
        return await self._let_out(outcome, EventLoop(self.workers), formed=quiet)

    def _scene(self) -> AbstractContextManager[None]:
        """Judge what agents do inside the tool in the scene of its call as well."""
        _, site = self.manned[0]
        entered: AbstractContextManager[None] = site.entered()
        return entered

    def _whole(self, kwargs: Mapping[str, Any]) -> Any:
        """Return the input of a tool that runs in a way of its own."""
        given = kwargs[_INPUT]
        if self.call["id"] is None:
            return given
        return {"type": "tool_call", "name": self.name, "id": self.call["id"], "args": given}

    async def _let_out(self, outcome: Outcome, host: Host, *, formed: bool) -> Any:
        """Return what the tool returned, or raise what it raised, if that may be shown."""
        id = self.call["id"]
        handled = outcome.is_handled(self.inner) and not formed
        shown = outcome.as_formed(self.inner, id) if formed else outcome.as_shown(self.inner, id)
        if shown is None:
            return outcome.raw()
        let_out = results.without_own_keys(shown)
        for gate, site in reversed(self.manned):
            let_out = await gate.let_out(let_out, self.call, site, host)
        if outcome.error is not None and not handled:
            raise outcome.error if let_out is shown else outcome.safe(str(let_out.text)) from None
        if let_out is shown and not handled:
            return outcome.raw()
        if id is None and isinstance(let_out, ToolMessage):
            let_out = let_out.content
        pair = self.response_format == "content_and_artifact"
        return (let_out, None) if pair else let_out


_INPUT: Final = "safecode_input"
_ERROR: Final = "safecode_error"


def _raise(error: Exception) -> None:
    raise error


async def _araise(error: Exception) -> None:
    raise error


def _overrides_run(inner: BaseTool) -> bool:
    """Return whether a tool runs in a way of its own, which has to be left to it."""
    kind = type(inner)
    return kind.run is not BaseTool.run or kind.arun is not BaseTool.arun


def _wanted(function: Callable[..., Any], config: RunnableConfig, manager: Any) -> dict[str, Any]:
    """Return what of a run's own a tool's method asks for."""
    wanted: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "run_manager":
            wanted[name] = manager
        elif "RunnableConfig" in str(parameter.annotation):
            wanted[name] = config
    return wanted
