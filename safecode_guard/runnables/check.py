"""`SafeCoDeCheck`: judge a conversation without generating anything, as a Runnable."""

from __future__ import annotations

import time
from typing import Any

from langchain_core.language_models.base import LanguageModelInput
from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue, StringPromptValue
from langchain_core.runnables import Runnable, RunnableConfig

from safecode_guard.judges.protocol import JudgeRequest
from safecode_guard.pipeline import Examiner, make_examiner, subject_of
from safecode_guard.policy import Policy
from safecode_guard.runnables.events import emit_verdict
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.turns.reading import read_turn
from safecode_guard.verdict import Verdict


class SafeCoDeCheck(Runnable[LanguageModelInput, Verdict]):
    """Messages in, a `Verdict` out; for gates before something that cannot be steered.

    Example:
        >>> gate = SafeCoDeCheck(judge=my_judge) | route_by_action(routes)    # doctest: +SKIP
    """

    def __init__(
        self,
        model: ChatTransformers | None = None,
        *,
        judge: Any = None,
        policy: Policy | None = None,
    ) -> None:
        """Make the check.

        Args:
            model: The model that judges, if the policy's judge is ``same_model``.
            judge: A judge of your own, or a LangChain chat model.
            policy: The policy in force; its actions become the verdict's.

        Raises:
            PolicyError: If policy and judge do not go together.
        """
        vlm = model.vlm if model is not None and judge is None else None
        self.policy = policy or Policy()
        self._examiner: Examiner = make_examiner(self.policy, model=vlm, judge=judge)

    def check(
        self, messages: LanguageModelInput, *, tool_call: dict[str, Any] | None = None
    ) -> Verdict:
        """Judge a conversation, or a tool call in it, outside of any run."""
        return self._examiner.check(self._subject(messages, tool_call))

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Verdict:
        """Judge a conversation; the verdict is also sent as an event on this run."""

        def judged(messages: LanguageModelInput) -> Verdict:
            verdict = self._examiner.check(self._subject(messages, kwargs.get("tool_call")))
            emit_verdict(verdict)
            return verdict

        return self._call_with_config(judged, input, config)

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Verdict:
        """Judge a conversation without blocking the event loop."""

        async def judged(messages: LanguageModelInput) -> Verdict:
            subject = self._subject(messages, kwargs.get("tool_call"))
            verdict = await self._examiner.acheck(subject)
            emit_verdict(verdict)
            return verdict

        return await self._acall_with_config(judged, input, config)

    def _subject(self, messages: LanguageModelInput, call: dict[str, Any] | None) -> JudgeRequest:
        seconds = self.policy.deadline_s
        deadline = None if seconds is None else time.monotonic() + seconds
        turn = read_turn(_messages(messages), self.policy.images)
        return subject_of(turn, call, deadline=deadline)


def _messages(messages: LanguageModelInput) -> list[BaseMessage]:
    if isinstance(messages, str):
        return StringPromptValue(text=messages).to_messages()
    if isinstance(messages, PromptValue):
        return messages.to_messages()
    return convert_to_messages(messages)
