"""A recorder of what a guard tells LangChain's callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from safecode_guard.verdict import CLOSED_EVENT, EVENT_NAME, Verdict


@dataclass(frozen=True)
class RecordedEvent:
    """A custom event as a callback handler got it."""

    name: str
    data: Any
    run_id: UUID
    tags: tuple[str, ...]
    metadata: Mapping[str, Any]


class EventRecorder(BaseCallbackHandler):
    """A LangChain callback handler that keeps every custom event it is told of.

    Example:
        >>> recorder = EventRecorder()
        >>> guard.invoke(messages, config={"callbacks": [recorder]})    # doctest: +SKIP
        >>> [verdict.action for verdict in recorder.verdicts]           # doctest: +SKIP
        ['guide']
    """

    def __init__(self) -> None:
        self.events: list[RecordedEvent] = []

    def on_custom_event(
        self,
        name: str,
        data: Any,
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep an event."""
        event = RecordedEvent(name, data, run_id, tuple(tags or ()), dict(metadata or {}))
        self.events.append(event)

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts among the events, in order."""
        return self._named(EVENT_NAME)

    @property
    def closed(self) -> list[Verdict]:
        """The verdicts told once more, with what became of their answers, in order."""
        return self._named(CLOSED_EVENT)

    def _named(self, name: str) -> list[Verdict]:
        return [Verdict.model_validate(event.data) for event in self.events if event.name == name]
