"""One run of a guarded tool whose call has passed: what it does, and what of it is let out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, Any, Final

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException
from pydantic import Field, SkipValidation

from safecode_guard.pipeline.host import EventLoop, Host, ThisThread, run
from safecode_guard_langchain import results
from safecode_guard_langchain.gate import Call, Gate, Site

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
            return (), {"safecode_input": tool_input}
        return self.inner._to_args_and_kwargs(tool_input, tool_call_id)

    def _run(
        self, *args: Any, config: RunnableConfig, run_manager: Any = None, **kwargs: Any
    ) -> Any:
        quiet = _overrides_run(self.inner)
        if quiet:
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
        if quiet:
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
        given = kwargs["safecode_input"]
        if self.call["id"] is None:
            return given
        return {"type": "tool_call", "name": self.name, "id": self.call["id"], "args": given}

    async def _let_out(self, outcome: Outcome, host: Host, *, formed: bool) -> Any:
        """Return what the tool returned, or raise what it raised, if that may be shown."""
        id = self.call["id"]
        shown = outcome.as_formed(self.inner, id) if formed else outcome.as_shown(self.inner, id)
        if shown is None:
            return outcome.raw()
        let_out = results.without_own_keys(shown)
        for gate, site in reversed(self.manned):
            let_out = await gate.let_out(let_out, self.call, site, host)
        if let_out is shown:
            return outcome.raw()
        if id is None and isinstance(let_out, ToolMessage):
            let_out = let_out.content
        pair = self.response_format == "content_and_artifact"
        return (let_out, None) if pair else let_out


@dataclass(frozen=True)
class Outcome:
    """What a tool did: it returned something, or raised."""

    returned: Any = None
    error: Exception | None = None

    @classmethod
    def of(cls, act: Callable[[], Any]) -> Outcome:
        """Run a tool; only the errors that may become a result are caught."""
        try:
            return cls(act())
        except ToolException as error:
            return cls(error=error)

    @classmethod
    async def aof(cls, act: Callable[[], Any]) -> Outcome:
        """Run a tool asynchronously."""
        try:
            return cls(await act())
        except ToolException as error:
            return cls(error=error)

    def raw(self) -> Any:
        """Return or raise it as the tool did."""
        if self.error is not None:
            raise self.error
        return self.returned

    def as_formed(self, inner: BaseTool, id: str | None) -> Any:
        """Return what a tool returned that makes its messages itself; None: it raised."""
        if self.error is not None:
            return None
        return results.as_message(self.returned, name=inner.name, id=id)

    def as_shown(self, inner: BaseTool, id: str | None) -> Any:
        """Return what becomes of it before anyone is shown it; None: an error that ends the run."""
        make = partial(results.as_message, name=inner.name, id=id)
        if self.error is not None:
            handle = inner.handle_tool_error
            return make(_handled(self.error, handle), status="error") if handle else None
        if inner.response_format != "content_and_artifact":
            return make(self.returned)
        if isinstance(self.returned, tuple) and len(self.returned) == 2:
            return make(*self.returned)
        return make(self.returned)  # LangChain refuses it, and may show it in doing so


def _handled(error: Exception, handle: Any) -> Any:
    """Return what a tool makes of its own error, as LangChain does it."""
    if isinstance(handle, bool):
        return error.args[0] if error.args else "Tool execution error"
    return handle if isinstance(handle, str) else handle(error)


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
