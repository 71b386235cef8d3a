"""What a guarded tool asks before it runs, and before its result is let out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage, ToolMessage

from safecode_guard.judges.protocol import canonical_json
from safecode_guard.pipeline.host import Host
from safecode_guard_langchain import results
from safecode_guard_langchain.answers import last_answer, place_of_answer
from safecode_guard_langchain.asked import answers_another, entry_asked
from safecode_guard_langchain.held import Hold
from safecode_guard_langchain.outputs import Output, Piece
from safecode_guard_langchain.rails import Rails, Ruling
from safecode_guard_langchain.review import (
    Decision,
    ask_about_call,
    can_ask,
    has_a_step_of_its_own,
)
from safecode_guard_langchain.scene import scenes, within_any, within_scene
from safecode_guard_langchain.state import (
    HELD,
    PASSED,
    SHOWN,
    VERDICTS,
    conversation_of,
    entries_of,
    note,
    remembers,
    sealed,
)

_BESIDE = (
    "it is held for review, and cannot be asked about beside other calls in one step "
    "(ask before the tools, in a review_node)"
)
_ANOTHER = "it is held for review, and the answer that waits here is to another question"
_LOST = (
    "the state has no conversation that makes this call: keep its messages in a list under one "
    "of the state's keys, or call the tool within_scene(messages)"
)
_NOBODY = "it is held for review, and there is nobody to ask (the graph has no checkpointer)"


Call = Mapping[str, Any]
"""A call in LangChain's form: name, args, id."""


class Passed(NamedTuple):
    """What became of a call."""

    refused: str | None = None
    """What the model is told instead of a result."""
    args: Mapping[str, Any] | None = None
    """Other arguments, where a human has changed them."""
    note: str = ""
    """What the model is told besides the result."""


@dataclass(frozen=True)
class Site:
    """Where a call is made: its conversation, and what the graph's state remembers."""

    messages: Sequence[BaseMessage]
    """As the model saw them, without the message that makes the call."""
    state: Any
    gate: Gate
    passed: frozenset[str]
    """Marks of media that have passed."""
    alone: bool = True
    """Whether the answer makes this one call."""
    lost: bool = False
    """The graph has no conversation where the guard looks, so that nothing can be judged in it."""
    updates: dict[str, Any] = field(default_factory=dict)
    """What is to be written to the state."""
    token: object = field(default_factory=object)
    """Tells this call from all others."""

    @classmethod
    def of(cls, messages: Sequence[BaseMessage], state: Any, gate: Gate) -> Site:
        """Return where the calls of a conversation's last answer are made."""
        answer = last_answer(messages)
        scene = [*without_answer(messages), *gate.shown_in(state)]
        alone = answer is None or len(answer.tool_calls) < 2
        return cls(scene, state, gate, gate.passed_in(state), alone)

    @classmethod
    def found(cls, state: Any, call_id: Any, gate: Gate) -> Site:
        """Return where a call is made, wherever a graph's state has its conversation."""
        messages = conversation_of(state, call_id)
        lost = not (messages or within_any())
        return replace(cls.of(messages, state, gate), lost=lost)

    def entered(self) -> AbstractContextManager[None]:
        """Judge what agents do inside the tool in this scene as well."""
        return within_scene(scenes(self.messages, self.gate.rails.sight)[0])

    def note(self, name: str, values: Mapping[str, Any]) -> None:
        """Remember something under a key of the state."""
        note(self.updates, name, values)

    def known(self, key: str, call: Call) -> Any:
        """Return what is known about a call, the newest first."""
        fresh = self.updates.get(VERDICTS, {})
        return fresh[key] if key in fresh else known_in(self.state, key, call, self.messages)


@dataclass(frozen=True)
class Gate:
    """Lets calls through and results out, as its rails say."""

    rails: Rails
    prefix: str = ""
    """Tells this guard's entries from those of another one in the same agent."""
    calls: bool = True
    results: bool = True

    # -- what the state remembers -------------------------------------------------------------

    @property
    def digest(self) -> str:
        """The policy under which something has passed."""
        return self.rails.examiner.digest

    def passed_in(self, state: Any) -> frozenset[str]:
        """Return the marks of what has passed under this policy."""
        prefix, digest = self.prefix, self.digest
        cut = len(prefix)
        given = entries_of(state, PASSED).items()
        return frozenset(key[cut:] for key, by in given if by == digest and key.startswith(prefix))

    def shown_in(self, state: Any) -> list[BaseMessage]:
        """Return the pictures that the model was shown beside a state's own messages."""
        found = entries_of(state, SHOWN).get(self.prefix) or []
        return [each for each in found if isinstance(each, BaseMessage)]

    def as_passed(self, marks: frozenset[str]) -> dict[str, str]:
        """Return marks in the form in which the state keeps them."""
        return {self.prefix + mark: self.digest for mark in sorted(marks)}

    def key(self, stage: str, subject: str) -> str:
        """Return the key of what is known about a subject."""
        return f"{self.prefix}{stage}:{subject}"

    def turn_key(self, messages: Sequence[BaseMessage]) -> str:
        """Return the key of the user's turn: by its last message's id, where it has one."""
        last = next((m.id for m in reversed(messages) if m.type == "human"), None)
        return self.key("input", last or "turn")

    def call_key(self, call: Call, stage: str = "tool_call") -> str:
        """Return the key of a call, by its id; a call without one is known by what it says."""
        id = call.get("id")
        return self.key(stage, id if isinstance(id, str) and id else _unnamed(call))

    def entry(self, ruling: Ruling, key: str) -> dict[str, Any]:
        """Return what is to be remembered of a ruling; nothing if nothing was judged."""
        verdict = ruling.verdict
        if verdict is None or (verdict.label is None and not verdict.degraded):
            return {}
        return {key: sealed(verdict, ruling.question)}

    # -- calls --------------------------------------------------------------------------------

    async def let_through(self, call: Call, site: Site, host: Host) -> Passed:
        """Return whether a call may run, after asking a human where the policy says so."""
        if not self.calls:
            return Passed()
        ruling = await self.ruling(call, site, host)
        if ruling.passes:
            return Passed()
        if not ruling.asks or ruling.verdict is None:
            return Passed(f"Not run: {ruling.reason}.")
        if not can_ask():
            return Passed(f"Not run: {ruling.reason}; {_NOBODY}.")
        if not (site.alone or has_a_step_of_its_own()):
            return Passed(f"Not run: {ruling.reason}; {_BESIDE}.")
        if await host.call(partial(answers_another, call)):
            return Passed(f"Not run: {ruling.reason}; {_ANOTHER}.")
        asked = sealed(ruling.verdict, ruling.question)
        decision = ask_about_call(call, asked, ruling.reason)
        return await self._decided(decision, call, ruling, site, host)

    async def ruling(self, call: Call, site: Site, host: Host) -> Ruling:
        """Return the ruling on a call, without asking anybody but the judge."""
        if not self.calls:
            return Ruling(self.rails.policy)
        if site.lost:
            return self.rails.unplaced(call, _LOST)
        key = self.call_key(call)
        known = site.known(key, call) or await host.call(partial(entry_asked, call))
        found = await self.rails.calls(
            site.messages, [call], host, known=[known], passed=site.passed
        )
        entry = self.entry(found[0], key)
        if entry.get(key) != known:
            site.note(VERDICTS, entry)
        return found[0]

    async def _decided(
        self,
        decision: Decision,
        call: Call,
        ruling: Ruling,
        site: Site,
        host: Host,
    ) -> Passed:
        key = self.call_key(call)
        if decision.kind == "edit" and decision.args is not None:
            edited = {**call, "args": dict(decision.args)}
            ruling = await self.ruling(edited, site, host)
            self._record(decision, ruling, site, key)
            if not ruling.passes:
                return Passed(f"Not run: as it was edited, {ruling.reason}.")
            return Passed(args=edited["args"], note=_note_of(edited))
        self._record(decision, ruling, site, key)
        if decision.kind == "approve":
            return Passed()
        why = f": {decision.message}" if decision.message else ""
        return Passed(f"Not run: rejected by {decision.by}{why}".rstrip(".") + ".")

    def _record(self, decision: Decision, ruling: Ruling, site: Site, key: str) -> None:
        if ruling.verdict is not None:
            reviewed = decision.recorded_on(ruling.verdict)
            site.note(VERDICTS, {key: sealed(reviewed, ruling.question)})

    # -- results ------------------------------------------------------------------------------

    async def let_out(self, output: Any, call: Call, site: Site, host: Host) -> Any:
        """Return a tool's output as it may be shown: itself, or without what may not."""
        if not self.results or self.rails.of_tool(call["name"]) is None:
            return output
        media, read = self.rails.sight.media, Output.of(output)
        judged = [
            piece
            for piece in read.pieces
            if media(piece.judged) - site.passed or _answers(piece.message, call)
        ]
        return await self._let_out(read, judged, call, site, host)

    async def let_out_unknown(self, output: Any, call: Call, site: Site, host: Host) -> Any:
        """Return what came back from further in, after looking at pictures that nobody judged."""
        if not self.results or self.rails.of_tool(call["name"]) is None:
            return output
        media, read = self.rails.sight.media, Output.of(output)
        noted = site.updates.get(PASSED, {})
        passed = site.passed | {key[len(self.prefix) :] for key in noted}
        unknown = [piece for piece in read.pieces if media(piece.judged) - passed]
        return await self._let_out(read, unknown, call, site, host) if unknown else output

    async def _let_out(
        self,
        read: Output,
        judged: Sequence[Piece],
        call: Call,
        site: Site,
        host: Host,
    ) -> Any:
        shown = [piece.judged for piece in judged]
        ruling = await self.rails.result(site.messages, call, shown, host, passed=site.passed)
        key = self.call_key(call, "tool_result")
        site.note(VERDICTS, self.entry(ruling, key))
        if ruling.passes:
            site.note(PASSED, self.as_passed(self.rails.sight.in_all(shown)))
            return read.given
        loose = any(piece.loose for piece in judged)  # it has no place to be given back to
        if ruling.asks and can_ask() and remembers(site.state) and not loose:
            hold = Hold(ruling.reason, {id(piece.message) for piece in judged})
            changed = read.changed(hold.placeholder)
            site.note(HELD, {key: hold.entry(call, ruling, self.digest)})
            return changed
        reason = f"{ruling.reason}; {_NOBODY}" if ruling.asks and not loose else ruling.reason
        chosen = {id(piece.message) for piece in judged}
        return read.changed(lambda m: self._withheld(m, reason, chosen))

    def _withheld(self, message: BaseMessage, reason: str, chosen: set[int]) -> BaseMessage:
        if id(message) not in chosen:
            return message
        return results.withheld(message, reason, self.rails.pictures)


def without_answer(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return a conversation without its last answer, whose calls are judged in it."""
    last = place_of_answer(messages)
    return list(messages) if last < 0 else [*messages[:last], *messages[last + 1 :]]


def known_in(state: Any, key: str, call: Call, before: Sequence[BaseMessage]) -> Any:
    """Return what a state remembers of a call; an approval is for one run."""
    entry = entries_of(state).get(key)
    if not isinstance(entry, Mapping) or not entry.get("review"):
        return entry
    ran = any(isinstance(m, ToolMessage) and m.tool_call_id == call.get("id") for m in before)
    return None if ran else entry


def _answers(message: BaseMessage, call: Call) -> bool:
    return isinstance(message, ToolMessage) and message.tool_call_id == (call["id"] or "")


def _note_of(call: Call) -> str:
    ran = f"{call['name']} {canonical_json(call['args'])}"
    return f"[a reviewer changed this call before it ran; what ran is: {ran}]"


def _unnamed(call: Call) -> str:
    return canonical_json([call.get("name"), call.get("args")])[:200]
