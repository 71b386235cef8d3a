"""Building blocks for graphs of your own: nodes that judge, nodes that ask, and where to go."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.types import Command

from safecode_guard.errors import PolicyError
from safecode_guard.judges.protocol import ToolCallSubject
from safecode_guard.pipeline.host import EventLoop, Host, ThisThread, run
from safecode_guard.runnables.arguments import require_names
from safecode_guard.taxonomy import ACTIONS, STAGES, Action, Stage, severity
from safecode_guard.verdict import PolicyRef, ToolCallRef, Verdict
from safecode_guard_langchain import results
from safecode_guard_langchain.agent import AgentGuard
from safecode_guard_langchain.answers import last_answer, refusal, text_of
from safecode_guard_langchain.factory import PolicyLike, ToolPolicy, make_rails
from safecode_guard_langchain.gate import Call, Gate, Site, without_answer
from safecode_guard_langchain.held import held_entry, settle
from safecode_guard_langchain.notes import Updates
from safecode_guard_langchain.rails import Ruling, reason_of
from safecode_guard_langchain.review import ask_about_verdict
from safecode_guard_langchain.state import (
    HELD,
    PASSED,
    VERDICTS,
    entries_of,
    judged_messages_in,
    messages_in,
    note,
    resealed,
    sealed,
    unsealed,
)


def guard_node(
    judge: Any,
    policy: PolicyLike | None = None,
    *,
    stage: Stage = "input",
    tool_policies: Mapping[str, ToolPolicy] | None = None,
    scene_images: int | None = None,
) -> Runnable[Any, Any]:
    """Return a node that judges what stands last in a graph's messages.

    Its verdicts are in ``safecode_verdicts`` (see `VerdictState`), where `verdict_edge` finds
    them. An answer that does not pass is replaced under its own id; so are pictures that a tool
    returned. Calls are judged here and let through in `guard_tools`.

    Args:
        judge: A judge, a chat model, a check or a guard.
        policy: The policy, a preset's name, or plain data.
        stage: What is judged: the user's turn, the calls of the last answer, the results behind
            it, or the answer itself.
        tool_policies: Policies of tools by name or pattern; ``skip`` is never judged.
        scene_images: Newest pictures that the judge is shown together.

    Raises:
        PolicyError: If the stage does not exist, or judge or policy would guard nothing; when it
            runs, if the state has no messages to judge.

    Example:
        >>> graph.add_node("guard", guard_node(judge))                   # doctest: +SKIP
        >>> graph.add_conditional_edges("guard", verdict_edge(nodes))    # doctest: +SKIP
    """
    require_names("stage", (stage,), STAGES)
    rails = make_rails(
        judge,
        policy,
        tool_policies=tool_policies,
        scene_images=scene_images,
        stages=[stage],
    )
    workers = ThreadPoolExecutor(4, thread_name_prefix="safecode-node")
    node = _Node(stage, AgentGuard(Gate(rails), workers=workers))

    def judge_state(state: Any) -> Updates | None:
        return run(node.judged(state, ThisThread()))

    async def ajudge_state(state: Any) -> Updates | None:
        return await node.judged(state, EventLoop(workers))

    return RunnableLambda(judge_state, ajudge_state, name=f"guard_{stage}")


def review_node(*, stage: Stage = "input") -> Runnable[Any, Any]:
    """Return a node that asks a human about what is held at a stage.

    The decision is recorded in the verdict: `verdict_edge` then goes where a pass or a block
    goes. Results that `guard_tools` hold are given back as they were, or withheld.

    Raises:
        PolicyError: If the stage does not exist.

    Example:
        >>> graph.add_node("ask", review_node(stage="input"))            # doctest: +SKIP
    """
    require_names("stage", (stage,), STAGES)

    def ask(state: Any) -> Updates | None:
        if stage in ("tool_result", "output"):
            return settle(state, stage)
        return _reviewed(state, stage)

    async def aask(state: Any) -> Updates | None:
        return ask(state)

    return RunnableLambda(ask, aask, name=f"review_{stage}")


def goto_by_action(verdict: Verdict, nodes: Mapping[Action, str]) -> Command[Any]:
    """Return the command that goes on by a verdict's action, a human's decision included.

    Raises:
        PolicyError: If an action does not exist, or this one has no node.

    Example:
        >>> def gate(state) -> Command:                                  # doctest: +SKIP
        ...     return goto_by_action(check.check(state["messages"]), nodes)
    """
    require_names("action", nodes, ACTIONS)
    action = verdict.standing
    if action not in nodes:
        raise PolicyError(f"No node for {action}.", hint="Name one for every action.")
    return Command(goto=nodes[action])


@dataclass(frozen=True)
class _Node:
    """Judges at one stage what stands last in a state."""

    stage: Stage
    agent: AgentGuard

    @property
    def gate(self) -> Gate:
        """What knows the entries of the state."""
        return self.agent.gate

    async def judged(self, state: Any, host: Host) -> Updates | None:
        """Return what the state becomes by it."""
        messages = judged_messages_in(state)
        if not messages:
            return None
        if self.stage == "input":
            return await self._input(messages, host)
        answer = last_answer(messages)
        if answer is None:
            return None
        conversation = without_answer(messages)
        if self.stage == "output":
            return await self._output(state, messages, answer, host)
        if self.stage == "tool_call":
            return await self._calls(state, conversation, answer, host)
        return await self._results(state, messages, answer, host)

    async def _input(self, messages: list[BaseMessage], host: Host) -> Updates:
        ruling = await self.gate.rails.turn(messages, messages, host)
        updates = self._entries({self.gate.turn_key(messages): ruling})
        if ruling.passes:
            marks = self.gate.rails.sight.in_all(messages)
            updates[PASSED] = self.gate.as_passed(marks)
        return updates

    async def _output(
        self, state: Any, messages: list[BaseMessage], answer: AIMessage, host: Host
    ) -> Updates:
        text = text_of(answer, ())
        shown = without_answer(messages)
        passed = self.gate.passed_in(state)
        ruling = await self.gate.rails.answer(shown, answer, text, host, passed=passed)
        key = self.gate.key("output", answer.id or "answer")
        updates = self._entries({key: ruling})
        if not ruling.passes:
            updates["messages"] = [refusal(ruling, self.agent.policy, id=answer.id)]
            if ruling.asks:
                text = self.agent.policy.refusal_text
                entry = held_entry([answer], ruling, self.gate.digest, instead=text)
                updates[HELD] = {key: entry}
        return updates

    async def _calls(
        self, state: Any, conversation: list[BaseMessage], answer: AIMessage, host: Host
    ) -> Updates:
        passed = self.gate.passed_in(state)
        calls: list[Call] = list(answer.tool_calls)
        rulings = await self.gate.rails.calls(conversation, calls, host, passed=passed)
        keys = [self.gate.call_key(call) for call in calls]
        found: dict[str, Ruling] = {}
        for key, call, ruling in zip(keys, calls, rulings, strict=True):
            judged = ruling if ruling.verdict else replace(ruling, verdict=self._skipped(call))
            if key not in found or _gravity(judged) > _gravity(found[key]):
                found[key] = judged
        return self._entries(found)

    def _skipped(self, call: Call) -> Verdict:
        """Return the verdict on a call that a policy never judges."""
        subject = ToolCallSubject.of(call)
        ref = ToolCallRef(id=subject.id, name=subject.name, args_sha256=subject.args_sha256())
        policy = PolicyRef(name=self.agent.policy.name, digest=self.gate.digest)
        return Verdict(stage="tool_call", label=None, action="pass", tool_call=ref, policy=policy)

    async def _results(
        self, state: Any, messages: list[BaseMessage], answer: AIMessage, host: Host
    ) -> Updates:
        behind = messages[messages.index(answer) + 1 :]
        site = Site.of(messages[: messages.index(answer) + 1], state, self.gate)
        calls = {call["id"]: call for call in answer.tool_calls}
        changed: list[BaseMessage] = []
        for message in behind:
            if isinstance(message, ToolMessage):
                named = calls.get(message.tool_call_id) or {"name": message.name or "", "args": {}}
                call = {**named, "id": message.tool_call_id}
                shown = await self.gate.let_out(message, call, site, host)
                changed += [] if shown is message else results.messages_of(shown)
        return {**({"messages": changed} if changed else {}), **site.updates}

    def _entries(self, rulings: Mapping[str, Ruling]) -> Updates:
        """Return the verdicts as the state keeps them: of a pass, too, which edges look for."""
        told = {
            key: sealed(ruling.verdict, ruling.question)
            for key, ruling in rulings.items()
            if ruling.verdict is not None
        }
        return {VERDICTS: told}


def _gravity(ruling: Ruling) -> int:
    return severity(ruling.verdict.standing) if ruling.verdict is not None else -1


def _reviewed(state: Any, stage: Stage) -> Updates | None:
    """Ask about the verdicts of a stage that hold something now."""
    answer = last_answer(messages_in(state))
    ids = {call["id"] for call in answer.tool_calls} if answer is not None else set()
    updates: Updates = {}
    entries = entries_of(state)
    read = [(key, verdict) for key in entries if (verdict := unsealed(entries[key]))]
    mine = [(key, verdict) for key, verdict in read if verdict.stage == stage]
    if stage == "tool_call":
        mine = [(k, v) for k, v in mine if v.tool_call is not None and v.tool_call.id in ids]
    else:
        mine = sorted(mine, key=lambda pair: pair[1].created_at)[-1:]
    for key, verdict in mine:
        if verdict.standing == "review":
            decision = ask_about_verdict(verdict, reason_of(verdict))
            entry = resealed(entries[key], decision.recorded_on(verdict))
            note(updates, VERDICTS, {key: entry})
    return updates or None
