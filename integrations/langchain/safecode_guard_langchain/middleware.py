"""`SafeCoDeMiddleware`: an agent's hooks, each handed on to what does the work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from langchain.agents.middleware import AgentMiddleware, TracePolicy, hook_config, omit_payload
from langchain.agents.middleware.types import (
    ContextT,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    ResponseT,
    ToolCallRequest,
)
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context
from langchain_core.tools import BaseTool
from langgraph.runtime import Runtime
from langgraph.types import Command

from safecode_guard.pipeline.host import EventLoop, ThisThread, run
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.taxonomy import Stage
from safecode_guard_langchain.agent import AgentGuard
from safecode_guard_langchain.factory import PolicyLike, ToolPolicy, make_rails
from safecode_guard_langchain.gate import Gate
from safecode_guard_langchain.held import settle
from safecode_guard_langchain.notes import Updates
from safecode_guard_langchain.state import GuardState
from safecode_guard_langchain.tools import warn_of_unmatched

ToolResult = ToolMessage | Command[Any]


class SafeCoDeMiddleware(AgentMiddleware[GuardState, ContextT, ResponseT]):
    """Judges an agent's user turns, tool calls, tool results and answers, each in its scene.

    It may stand anywhere in the list of middlewares: calls are let through where tools run, and
    pictures where the model is called, whatever others do in between. Verdicts are in the state
    (``safecode_verdicts``), in the custom event ``safecode.verdict``, and on what is said instead
    of an answer.

    Example:
        >>> agent = create_agent(                                          # doctest: +SKIP
        ...     model, tools, middleware=[SafeCoDeMiddleware(judge)]
        ... )
    """

    state_schema = GuardState
    trace_policy = TracePolicy(process_inputs=omit_payload)
    """Traces of the hooks hold no conversation: it may show what nobody has judged yet."""

    def __init__(
        self,
        judge: Any,
        *,
        policy: PolicyLike | None = None,
        apply_to_input: bool = True,
        apply_to_tool_calls: bool = True,
        apply_to_tool_results: bool = True,
        apply_to_output: bool = True,
        tool_policies: Mapping[str, ToolPolicy] | None = None,
        scene_images: int | None = None,
        name: str | None = None,
    ) -> None:
        """Make the middleware.

        Args:
            judge: A judge, a chat model that is to judge, or a `SafeCoDeCheck` or
                `SafeCoDeGuard`, whose judge and memory are then shared. A guard that is also the
                agent's model judges its own turns, and they are not judged twice.
            policy: The policy, a preset's name, or plain data; None: the check's or guard's own.
            apply_to_input: Judge the user's turns.
            apply_to_tool_calls: Judge tool calls before they run.
            apply_to_tool_results: Judge what tools return before it is shown.
            apply_to_output: Judge answers before they are given; they then come whole.
            tool_policies: Policies of tools by name or pattern, the first that matches; ``skip``
                is never judged. Every tool that is not named is judged under ``policy``.
            scene_images: Newest pictures that the judge is shown together; None: the policy's (4).
            name: Of this middleware, if it is listed more than once.

        Raises:
            PolicyError: If judge or policy would guard nothing.
        """
        super().__init__()
        applied: dict[Stage, bool] = {
            "input": apply_to_input,
            "tool_call": apply_to_tool_calls,
            "tool_result": apply_to_tool_results,
            "output": apply_to_output,
        }
        rails = make_rails(
            judge,
            policy,
            tool_policies=tool_policies,
            scene_images=scene_images,
            stages=[stage for stage, on in applied.items() if on],
        )
        prefix = f"{name}/" if name else ""
        gate = Gate(rails, prefix, calls=apply_to_tool_calls, results=apply_to_tool_results)
        self._name = name or type(self).__name__
        self._patterns = dict(tool_policies or {})
        self._workers = ThreadPoolExecutor(8, thread_name_prefix="safecode-agent")
        self._agent = AgentGuard(
            gate,
            input=apply_to_input,
            output=apply_to_output,
            guard=judge if isinstance(judge, SafeCoDeGuard) else None,
            workers=self._workers,
        )

    @property
    def name(self) -> str:
        """The name under which it is listed."""
        return self._name

    # -- the user's turn ----------------------------------------------------------------------

    @hook_config(can_jump_to=["end"])
    def before_agent(self, state: GuardState, runtime: Runtime[ContextT]) -> Updates | None:
        """Judge the user's turn."""
        return run(self._agent.user_turn(state, ThisThread()))

    @hook_config(can_jump_to=["end"])
    async def abefore_agent(self, state: GuardState, runtime: Runtime[ContextT]) -> Updates | None:
        """Judge the user's turn."""
        return await self._agent.user_turn(state, EventLoop(self._workers))

    # -- what is held -------------------------------------------------------------------------

    def before_model(self, state: GuardState, runtime: Runtime[ContextT]) -> Updates | None:
        """Ask about results that are held, before the model is shown them."""
        return self._settled(state)

    async def abefore_model(self, state: GuardState, runtime: Runtime[ContextT]) -> Updates | None:
        """Ask about results that are held, before the model is shown them."""
        return self._settled(state)

    # -- the model ----------------------------------------------------------------------------

    def wrap_model_call(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], ModelResponse[ResponseT]],
    ) -> ModelResponse[ResponseT] | ExtendedModelResponse[ResponseT]:
        """Show the model what has passed, and let out what it answers if that passes, too."""
        self._warn(request)

        async def ask(request: ModelRequest[Any], config: RunnableConfig) -> ModelResponse[Any]:
            with set_config_context(config) as context:
                return context.run(handler, request)

        return run(self._agent.model_call(request, ask, ThisThread()))

    async def awrap_model_call(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], Awaitable[ModelResponse[ResponseT]]],
    ) -> ModelResponse[ResponseT] | ExtendedModelResponse[ResponseT]:
        """Show the model what has passed, and let out what it answers if that passes, too."""
        self._warn(request)

        async def ask(request: ModelRequest[Any], config: RunnableConfig) -> ModelResponse[Any]:
            async def call() -> ModelResponse[Any]:
                return await handler(request)

            with set_config_context(config) as context:
                return await asyncio.create_task(call(), context=context)

        return await self._agent.model_call(request, ask, EventLoop(self._workers))

    def after_model(self, state: GuardState, runtime: Runtime[ContextT]) -> Updates | None:
        """Judge the calls that the model proposes; the verdicts are checkpointed."""
        return run(self._agent.proposed(state, ThisThread()))

    async def aafter_model(self, state: GuardState, runtime: Runtime[ContextT]) -> Updates | None:
        """Judge the calls that the model proposes; the verdicts are checkpointed."""
        return await self._agent.proposed(state, EventLoop(self._workers))

    # -- tools --------------------------------------------------------------------------------

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolResult]
    ) -> ToolResult:
        """Hand down a tool that runs only what passes, and returns only what may be shown."""

        async def ask(request: ToolCallRequest) -> Any:
            with set_config_context(request.runtime.config) as context:
                return context.run(handler, request)

        output: ToolResult = run(self._agent.tool_call(request, ask, ThisThread()))
        return output

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolResult]],
    ) -> ToolResult:
        """Hand down a tool that runs only what passes, and returns only what may be shown."""

        async def ask(request: ToolCallRequest) -> Any:
            async def call() -> ToolResult:
                return await handler(request)

            with set_config_context(request.runtime.config) as context:
                return await asyncio.create_task(call(), context=context)

        host = EventLoop(self._workers)
        output: ToolResult = await self._agent.tool_call(request, ask, host)
        return output

    # -- the end ------------------------------------------------------------------------------

    def after_agent(self, state: GuardState, runtime: Runtime[ContextT]) -> Updates | None:
        """Ask about what is still held, and judge an answer that came past the model."""
        held = self._settled(state)
        return held or run(self._agent.finished(state, ThisThread()))

    async def aafter_agent(self, state: GuardState, runtime: Runtime[ContextT]) -> Updates | None:
        """Ask about what is still held, and judge an answer that came past the model."""
        held = self._settled(state)
        return held or await self._agent.finished(state, EventLoop(self._workers))

    def _settled(self, state: GuardState) -> Updates | None:
        return settle(state, "tool_result", prefix=self._agent.gate.prefix)

    def _warn(self, request: ModelRequest[Any]) -> None:
        """Warn, once a conversation, of patterns that name none of the agent's tools."""
        if self._patterns and not any(isinstance(m, AIMessage) for m in request.messages):
            names = [tool.name for tool in request.tools if isinstance(tool, BaseTool)]
            warn_of_unmatched(self._patterns, names)
