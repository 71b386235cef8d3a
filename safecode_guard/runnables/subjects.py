"""From messages to what is examined of them, for whoever judges without generating."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.language_models.base import LanguageModelInput
from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue, StringPromptValue

from safecode_guard.errors import PolicyError
from safecode_guard.judges.protocol import ToolCallSubject
from safecode_guard.pipeline.examiner import Subject
from safecode_guard.policy import Policy
from safecode_guard.runnables.arguments import require_names
from safecode_guard.runnables.runs import run_of
from safecode_guard.taxonomy import STAGES, Stage
from safecode_guard.turns.pictures import PictureStore
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.turn import Turn


@dataclass(frozen=True)
class Examination:
    """What one check is about."""

    messages: LanguageModelInput
    stage: Stage | None = None
    """None: ``tool_call`` if there is one, else ``input``."""
    tool_call: Mapping[str, Any] | None = None
    """In LangChain's form: the call that is about to run, or whose result is examined."""
    answer: str | None = None
    """At stage ``output``; None: the last message."""
    started: float = field(default_factory=time.monotonic)
    """When it was called for: the policy's deadline counts from there."""

    def subject(self, policy: Policy, pictures: PictureStore) -> Subject:
        """Read the messages and return what is examined of them; blocks while pictures are read.

        Raises:
            UnreadableCall: If the tool call has no name, or no plain arguments.
            TurnTimeout: If the policy's deadline passes meanwhile.
            PolicyError: If the stage does not exist, or what it is about is missing.
        """
        stage = self._stage()
        call = None if self.tool_call is None else ToolCallSubject.of(self.tool_call)
        deadline = policy.deadline_from(self.started)
        turn = read_turn(
            messages_of(self.messages), policy.images, pictures=pictures, deadline=deadline
        )
        subject = Subject(stage, turn, call, deadline=deadline, run=run_of(None))
        self._require_last(turn, stage)
        if stage == "tool_result":
            return replace(
                subject, result=_last_text(turn, "tool"), own_images=_newest(turn, "tool")
            )
        if stage == "output":
            answer = _last_text(turn, "assistant") if self.answer is None else self.answer
            return replace(subject, answer=answer, own_images=_newest(turn, "assistant"))
        return subject

    def _require_last(self, turn: Turn, stage: Stage) -> None:
        """Check that what is to be examined is there: a check of nothing would pass."""
        given: object = self.answer
        if given is not None and not isinstance(given, str):
            raise PolicyError(
                f"The answer is given as {type(given).__name__!r}.", hint="Pass its text."
            )
        wanted = {"tool_result": "tool", "output": "assistant"}.get(stage)
        if wanted is None or given is not None or turn.messages[-1].role == wanted:
            return
        raise PolicyError(
            f"Stage {stage!r} needs a last message of the role {wanted!r}.",
            hint="End the conversation with what is to be examined, or pass answer=.",
        )

    def _stage(self) -> Stage:
        derived: Stage = "tool_call" if self.tool_call is not None else "input"
        stage = derived if self.stage is None else self.stage
        require_names("stage", (stage,), STAGES)
        if stage == "tool_call" and self.tool_call is None:
            raise PolicyError(
                "Stage 'tool_call' needs a call.", hint="Pass tool_call={'name': ..., 'args': ...}."
            )
        return stage


def messages_of(given: LanguageModelInput) -> list[BaseMessage]:
    """Return a chat model's input as messages."""
    if isinstance(given, str):
        return StringPromptValue(text=given).to_messages()
    if isinstance(given, PromptValue):
        return given.to_messages()
    return convert_to_messages(given)


def _trailing(turn: Turn, role: str) -> int:
    """Return where the last messages of a role begin, the conversation's end if it has none."""
    start = len(turn.messages)
    while start and turn.messages[start - 1].role == role:
        start -= 1
    return start


def _last_text(turn: Turn, role: str) -> str:
    return "\n".join(m.text for m in turn.messages[_trailing(turn, role) :]).strip()


def _newest(turn: Turn, role: str) -> int:
    """Return how many pictures the last messages of a role brought."""
    last = turn.messages[_trailing(turn, role) :]
    indices = [i for message in last for i in message.judged_indices]
    return len(turn.images) - min(indices) if indices else 0
