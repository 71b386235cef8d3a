"""Judging without generating: what a guard and a check have in common."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.language_models.base import LanguageModelInput

from safecode_guard.pipeline.examiner import Examiner
from safecode_guard.pipeline.host import EventLoop
from safecode_guard.runnables.subjects import Examination
from safecode_guard.taxonomy import Stage
from safecode_guard.verdict import Verdict

if TYPE_CHECKING:
    from safecode_guard.policy import Policy
    from safecode_guard.turns.pictures import PictureStore


class Checking:
    """Judges conversations, and what is about to happen in them."""

    if TYPE_CHECKING:  # fields of a pydantic model in one of the two
        policy: Policy
        _pictures: PictureStore

        @property
        def examiner(self) -> Examiner:
            """What routes, judges and concludes."""

        def _host(self, call: Any = None) -> EventLoop:
            """Return who runs async calls."""

    @property
    def pictures(self) -> PictureStore:
        """Decoded pictures, kept from one reading to the next; whoever judges along shares them."""
        return self._pictures

    def check(
        self,
        messages: LanguageModelInput,
        *,
        stage: Stage | None = None,
        tool_call: Mapping[str, Any] | None = None,
        answer: str | None = None,
    ) -> Verdict:
        """Judge a conversation, or something about to happen in it; nothing is generated.

        What the policy does not judge comes back with the action ``pass`` and no label.

        Args:
            messages: The conversation; at stage ``tool_result`` it ends with the result.
            stage: What is judged; None: the tool call if there is one, else the user's turn.
            tool_call: A call in LangChain's form (name, args, id).
            answer: The finished answer at stage ``output``; None: the last message.

        Raises:
            GuardError: If there is nothing that could be judged: no message, no such stage.
        """
        examination = Examination(messages, stage, tool_call, answer)
        return self.examiner.check(examination.subject(self.policy, self._pictures))

    async def acheck(
        self,
        messages: LanguageModelInput,
        *,
        stage: Stage | None = None,
        tool_call: Mapping[str, Any] | None = None,
        answer: str | None = None,
    ) -> Verdict:
        """Judge a conversation without blocking the event loop; see `check`."""
        examination, host = Examination(messages, stage, tool_call, answer), self._host()
        subject = await host.call(partial(examination.subject, self.policy, self._pictures))
        examiner = await host.call(lambda: self.examiner)  # the first use may load weights
        return await examiner.examine(subject, host)
