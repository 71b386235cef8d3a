"""What is found out in one step of an agent, and has to be written to its state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from safecode_guard_langchain.answers import mark_of
from safecode_guard_langchain.gate import Gate
from safecode_guard_langchain.rails import Ruling
from safecode_guard_langchain.results import as_result
from safecode_guard_langchain.scene import place_of
from safecode_guard_langchain.state import PASSED, SHOWN, VERDICTS, note

Updates = dict[str, Any]


@dataclass
class Notes:
    """Notes on one step: verdicts, what has passed, and what the model was shown besides."""

    gate: Gate
    conversation: Sequence[BaseMessage]
    """The messages of the state, without the answer that is judged."""
    passed: frozenset[str]
    shown: list[BaseMessage]
    """Pictures that the model was shown for its newest answer, and that the state does not hold."""
    updates: Updates = field(default_factory=dict)

    @classmethod
    def of(cls, gate: Gate, conversation: Sequence[BaseMessage], state: Any) -> Notes:
        """Return notes on a step that begins with what a state remembers."""
        return cls(gate, conversation, gate.passed_in(state), gate.shown_in(state))

    @property
    def scene(self) -> list[BaseMessage]:
        """The conversation as the model saw it when it gave its newest answer."""
        return [*self.conversation, *self.shown]

    def verdict(self, ruling: Ruling, key: str) -> None:
        """Remember a verdict."""
        note(self.updates, VERDICTS, self.gate.entry(ruling, key))

    def passes(self, marks: frozenset[str]) -> None:
        """Remember what has passed."""
        self.passed |= marks
        note(self.updates, PASSED, self.gate.as_passed(marks))

    def mark(self, answer: AIMessage, text: str) -> str:
        """Return the mark of an answer in this scene."""
        sight = self.gate.rails.sight
        return mark_of(answer, text, place_of(self.scene, sight), sight)

    def asks_anew(self) -> None:
        """Forget what the model was shown for its last answer: it is asked for the next."""
        if self.shown:
            note(self.updates, SHOWN, {self.gate.prefix: []})
        self.shown = []

    def shows(self, messages: Iterable[BaseMessage]) -> None:
        """Remember pictures that a model is shown and that no message of the state holds."""
        sight, scene = self.gate.rails.sight, self.scene
        own = {id(message) for message in scene}
        others = [message for message in messages if id(message) not in own]
        if not sight.shows(others):
            return
        have = sight.in_all(scene)
        brought = [message for message in others if sight.media(message) - have]
        if brought:
            self.shown = [*self.shown, *map(as_result, brought)]
            note(self.updates, SHOWN, {self.gate.prefix: self.shown})

    def beyond(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Return messages with the pictures that the model was shown besides them."""
        if not self.shown:
            return list(messages)
        sight = self.gate.rails.sight
        have = sight.in_all(messages)
        return [*messages, *(each for each in self.shown if sight.media(each) - have)]
