"""The guarded tool: the one place where a call is let through, and a result let out.

Whatever stands between a model and its tools may change a call: a human's edit, a middleware, a
redirect. So a call is judged where it runs, as it runs; and what the tool returned is judged
before any event, stream or state is given it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Final, NamedTuple, get_type_hints

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolCallId, Tool, tool
from langchain_core.tools.base import ArgsSchema
from langgraph.prebuilt import InjectedState, InjectedStore
from langgraph.prebuilt.tool_node import ToolRuntime
from pydantic import Field, SkipValidation

from safecode_guard.pipeline.host import EventLoop, Host, ThisThread, run
from safecode_guard_langchain import results
from safecode_guard_langchain.factory import PolicyLike, ToolPolicy, make_rails
from safecode_guard_langchain.gate import Call, Gate, Passed, Site
from safecode_guard_langchain.outputs import holds_media
from safecode_guard_langchain.passage import Manned, Passage, face_of
from safecode_guard_langchain.state import remembers

RUNTIME: Final = "safecode_runtime"
"""The hidden argument by which a guarded tool is told the state of its graph."""

passing: ContextVar[frozenset[object]] = ContextVar("safecode_passing", default=frozenset())
"""Tokens of the call that has been let through here, for whoever watches that nothing else runs."""


class Post(NamedTuple):
    """A guard of a tool, and where it stands."""

    gate: Gate
    site: Site | None = None
    """Where the call is made; None: told by the graph's own runtime."""


class UnmatchedToolWarning(UserWarning):
    """A policy for tools names none of the agent's tools."""


class GuardedTool(BaseTool):
    """A tool with the same face, whose calls and results are judged.

    Example:
        >>> guarded, = guard_tools([search], judge)                    # doctest: +SKIP
        >>> guarded.name == search.name                                # doctest: +SKIP
        True
    """

    inner: Annotated[BaseTool, SkipValidation()]
    posts: Annotated[tuple[Post, ...], SkipValidation()] = Field(exclude=True, repr=False)
    """The guards, from the outermost to the innermost."""
    workers: Annotated[Any, SkipValidation()] = Field(default=None, exclude=True, repr=False)
    func: Annotated[Any, SkipValidation()] = Field(default=None, exclude=True, repr=False)
    """Tells `ToolNode` what to inject: what the tool asks for, and the graph's runtime."""

    @classmethod
    def around(
        cls, inner: BaseTool, gate: Gate, *, site: Site | None = None, workers: Any = None
    ) -> GuardedTool:
        """Return the guarded form of a tool; one that is guarded already gets a guard more."""
        posts: tuple[Post, ...] = (Post(gate, site),)
        if isinstance(inner, GuardedTool):
            posts += inner.posts
            inner = inner.inner
        face = face_of(inner)
        if isinstance(inner, Tool) and inner.args_schema is None:
            face["args_schema"] = _SINGLE_TEXT
        made = cls(inner=inner, posts=posts, workers=workers, **face)
        made.func = _carrier(inner, told=all(post.site for post in posts))
        return made

    # -- the face: as the tool's own ----------------------------------------------------------

    @property
    def tool_call_schema(self) -> ArgsSchema:
        """The schema that a model is shown."""
        own = self.args_schema is _SINGLE_TEXT
        return super().tool_call_schema if own else self.inner.tool_call_schema

    @property
    def args(self) -> dict[str, Any]:
        """The arguments that a model is shown."""
        return self.inner.args

    @cached_property
    def _injected_args_keys(self) -> frozenset[str]:
        return self.inner._injected_args_keys

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        """Return the tool's own schema of its input."""
        return self.inner.get_input_schema(config)

    # -- running ------------------------------------------------------------------------------

    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the tool if the call passes; what does not is answered instead."""
        host = ThisThread()

        async def go(passage: Passage, given: Any) -> Any:
            return passage.run(given, *args, **kwargs)

        return run(self._pass(tool_input, kwargs.get("tool_call_id"), go, host))

    async def arun(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the tool if the call passes, without blocking the event loop."""
        host = EventLoop(self.workers)

        async def go(passage: Passage, given: Any) -> Any:
            return await passage.arun(given, *args, **kwargs)

        return await self._pass(tool_input, kwargs.get("tool_call_id"), go, host)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("A guarded tool runs by run, invoke and their async twins.")

    async def _pass(
        self, tool_input: Any, id: str | None, go: Callable[..., Any], host: Host
    ) -> Any:
        given = _Input.of(tool_input, self.inner)
        manned = [(post.gate, post.site or _site_of(given, id, post.gate)) for post in self.posts]
        call: Call = {"name": self.name, "args": given.visible, "id": id}
        passed = await _let_through(call, manned, host)
        if passed.refused is not None:
            return self._recorded(self._told(passed.refused, id), manned)
        ran = call if passed.args is None else {**call, "args": passed.args}
        passage = Passage.of(self.inner, ran, manned, self.workers)
        token = passing.set(frozenset(site.token for _, site in manned))
        try:
            output = await go(passage, given.with_args(passed.args))
        finally:
            passing.reset(token)
        if passed.note:
            output = results.noted(output, passed.note, id)
        return self._recorded(output, manned)

    def _told(self, reason: str, id: str | None) -> Any:
        if id is None:
            return reason
        return ToolMessage(reason, name=self.name, tool_call_id=id, status="error")

    def _recorded(self, output: Any, manned: Manned) -> Any:
        """Write what was found to the state, where nobody further out does so."""
        for post, (_, site) in zip(self.posts, manned, strict=True):
            if post.site is None and remembers(site.state):
                output = results.with_updates(output, site.updates)
        return output


async def _let_through(call: Call, manned: Manned, host: Host) -> Passed:
    """Return whether every guard lets a call through, as it will run in the end."""
    args: Mapping[str, Any] | None = None
    notes: list[str] = []
    for gate, site in manned:
        passed = await gate.let_through(call, site, host)
        if passed.refused is not None:
            return passed
        if passed.args is not None:
            args, call = passed.args, {**call, "args": passed.args}
            notes.append(passed.note)
    for gate, site in manned if args is not None else ():
        ruling = await gate.ruling(call, site, host)
        if not ruling.passes:
            return Passed(f"Not run: as it was edited, {ruling.reason}.")
    return Passed(args=args, note="\n".join(notes))


def guard_tools(
    tools: Sequence[BaseTool | Callable[..., Any]],
    judge: Any,
    policy: PolicyLike | None = None,
    *,
    tool_policies: Mapping[str, ToolPolicy] | None = None,
    scene_images: int | None = None,
) -> list[BaseTool]:
    """Return tools whose calls and results are judged, for graphs of your own.

    They work wherever tools do: in a `ToolNode`, in agents, with injected state and runtime. In a
    graph whose state is a `VerdictState`, verdicts are remembered and what is held can be asked
    about. Name, schema and metadata are what they were.

    The conversation is looked for in the graph's state, in the list of messages whose last answer
    makes the call; without one a call is `unjudgeable`. Invoked by hand, outside of a `ToolNode`, a
    call is judged in the scene of its caller (`within_scene`), and without one as words alone.

    Args:
        tools: The tools, or functions to make them of.
        judge: A judge, a chat model, a check or a guard.
        policy: The policy, a preset's name, or plain data.
        tool_policies: Policies of tools by name or pattern; ``skip`` is never judged.
        scene_images: Newest pictures that the judge is shown together.

    Raises:
        PolicyError: If judge or policy would guard nothing.
    """
    rails = make_rails(
        judge,
        policy,
        tool_policies=tool_policies,
        scene_images=scene_images,
        stages=("tool_call", "tool_result"),
    )
    made = [each if isinstance(each, BaseTool) else tool(each) for each in tools]
    warn_of_unmatched(tool_policies or {}, [each.name for each in made])
    gate = Gate(rails)
    workers = ThreadPoolExecutor(4, thread_name_prefix="safecode-tools")
    return [GuardedTool.around(each, gate, workers=workers) for each in made]


def warn_of_unmatched(patterns: Mapping[str, Any], names: Sequence[str]) -> None:
    """Warn of patterns that match none of an agent's tools: they guard, or skip, nothing."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            warnings.warn(
                f"tool_policies name {pattern!r}, but none of the tools is called so: "
                f"{', '.join(sorted(names)) or 'there are none'}.",
                UnmatchedToolWarning,
                stacklevel=2,
            )


@dataclass(frozen=True)
class _Input:
    """What a tool is run with: what the model wrote, and what was injected."""

    given: Any
    visible: dict[str, Any]
    runtime: ToolRuntime | None = None
    hidden: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Any, inner: BaseTool) -> _Input:
        """Tell apart what a tool is run with."""
        if not isinstance(given, dict):
            return cls(given, {"__arg1": given})
        runtime = next((v for v in given.values() if isinstance(v, ToolRuntime)), None)
        own = {key: value for key, value in given.items() if key != RUNTIME}
        shown = inner._filter_injected_args(own) if runtime else _without_injected(own, inner)
        visible = {k: v for k, v in shown.items() if not isinstance(v, ToolRuntime)}
        hidden = {key: value for key, value in own.items() if key not in visible}
        return cls(own, visible, runtime, hidden)

    def with_args(self, args: Mapping[str, Any] | None) -> Any:
        """Return the input with other arguments, where a human has changed them."""
        given = self.given if args is None else {**args, **self.hidden}
        if isinstance(given, dict):
            return {k: _quiet(v) if isinstance(v, ToolRuntime) else v for k, v in given.items()}
        return given


class QuietRuntime(ToolRuntime):
    """A tool's runtime that streams words of progress, and no pictures that nobody has judged."""

    def emit_output_delta(self, delta: Any) -> None:
        """Stream a piece of text; anything else is not shown before it is judged."""
        if isinstance(delta, str) and len(delta) < _LONG and not holds_media(delta):
            super().emit_output_delta(delta)


_LONG: Final = 10_000


def _quiet(runtime: ToolRuntime) -> ToolRuntime:
    return QuietRuntime(**{each.name: getattr(runtime, each.name) for each in fields(runtime)})


def _site_of(given: _Input, id: str | None, gate: Gate) -> Site:
    """Return where a call is made, from the runtime of its graph.

    Called by hand there is none: the call is judged in its caller's scene if there is one, and
    otherwise as words alone.
    """
    if given.runtime is None:
        return Site.of([], {}, gate)
    return Site.found(given.runtime.state, id, gate)


def _carrier(inner: BaseTool, *, told: bool) -> Callable[..., None]:
    """Return a function whose annotations say what is to be injected into a guarded tool."""
    function = getattr(inner, "func", None) or getattr(inner, "coroutine", None)
    hints = _hints(function) if function is not None else {}
    schema = inner.get_input_schema()
    known = {**hints, **{n: f.annotation for n, f in getattr(schema, "model_fields", {}).items()}}
    told = told or any(name == "runtime" or _is_runtime(hint) for name, hint in known.items())

    def carry() -> None:
        """Carry annotations."""

    carry.__annotations__ = hints if told else {**hints, RUNTIME: ToolRuntime}
    return carry


def _without_injected(given: dict[str, Any], inner: BaseTool) -> dict[str, Any]:
    """Return what a tool is called with by hand, without what only a graph can mean."""
    function = getattr(inner, "func", None) or getattr(inner, "coroutine", None)
    hints = {**_hints(inner._run), **(_hints(function) if function is not None else {})}
    for name, field_ in getattr(inner.get_input_schema(), "model_fields", {}).items():
        if field_.metadata:
            hints.setdefault(name, Annotated[(Any, *field_.metadata)])
        hints.setdefault(name, field_.annotation)
    return {key: value for key, value in given.items() if not _is_injected(hints.get(key))}


def _is_injected(hint: Any) -> bool:
    marks = getattr(hint, "__metadata__", ())
    kinds = [mark if isinstance(mark, type) else type(mark) for mark in marks]
    return any(issubclass(kind, _GRAPHS_OWN) for kind in kinds) or _is_runtime(hint)


_GRAPHS_OWN: Final = (InjectedState, InjectedStore, InjectedToolCallId)


def _is_runtime(hint: Any) -> bool:
    origin = getattr(hint, "__origin__", hint)
    return isinstance(origin, type) and issubclass(origin, ToolRuntime)


def _hints(function: Any) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # annotations that cannot be resolved inject nothing
        return {}


_SINGLE_TEXT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"__arg1": {"title": "__arg1", "type": "string"}},
    "required": ["__arg1"],
}
"""What a model is shown of a tool that takes one text."""
