"""What a judge is asked, and what it must be able to do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from safecode_guard.models.protocol import VisionLanguageModel
from safecode_guard.taxonomy import Stage
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import Judgement


class Prefix(Protocol):
    """A prefilled prompt of the judge's own model, shared with the answer that will follow."""

    def logits(self) -> Tensor:
        """Return the next-token logits [n] after the judge's question, computed at most once."""


@dataclass(frozen=True)
class ToolCallSubject:
    """A tool call that is to be judged before it runs."""

    id: str
    name: str
    arguments: dict[str, Any]

    def args_sha256(self) -> str:
        """Return the sha256 of name and canonical arguments: what the verdict is bound to."""
        canonical = json.dumps([self.name, self.arguments], sort_keys=True, default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class JudgeRequest:
    """One thing to judge: a turn, a tool call, a tool's result or a finished answer.

    ``deadline`` is in seconds of ``time.monotonic``. ``prefix`` is a handle that only the judge
    which made the prompt can use; it is no part of the request's identity.
    """

    stage: Stage
    turn: Turn
    tool_call: ToolCallSubject | None = None
    answer: str | None = None
    """The finished text, at stage ``output``."""
    deadline: float | None = None
    prefix: Prefix | None = field(default=None, compare=False, repr=False)

    def key(self, judge_id: str, prompt_version: str) -> str:
        """Return the sha256 under which a judgement of this request may be cached."""
        call = self.tool_call and [self.tool_call.name, self.tool_call.arguments]
        canonical = [self.stage, self.turn.key(), call, self.answer, judge_id, prompt_version]
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()


@runtime_checkable
class Judge(Protocol):
    """Anything that can judge a request.

    A judge raises `JudgeError` when the check itself fails, and never guesses: what it cannot
    read is ``undecided`` with a ``parse_status``.

    Example:
        >>> class Cautious:
        ...     id = "cautious-1"
        ...     prompt_version = "1"
        ...     gives_categories = False
        ...     def judge(self, request):
        ...         return Judgement(judge_id=self.id, prompt_version="1", p_unsafe=1.0)
        ...     async def ajudge(self, request):
        ...         return self.judge(request)
    """

    id: str
    prompt_version: str
    gives_categories: bool

    def judge(self, request: JudgeRequest) -> Judgement:
        """Judge one request."""

    async def ajudge(self, request: JudgeRequest) -> Judgement:
        """Judge one request without blocking the event loop."""


@runtime_checkable
class BatchJudge(Judge, Protocol):
    """A judge that is cheaper on many requests at once."""

    def judge_many(self, requests: list[JudgeRequest]) -> list[Judgement]:
        """Judge requests, in order."""


@runtime_checkable
class PromptingJudge(Judge, Protocol):
    """A judge whose question can continue the prefilled prompt of the guarded model."""

    model: VisionLanguageModel
    """The model whose prompt the question continues."""

    def question(self, request: JudgeRequest) -> Turn:
        """Return the conversation whose next token is the label."""
