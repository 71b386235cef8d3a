"""Guards around scripted models, and what tests of them share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import FakeListChatModel
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk

from safecode_guard.judges.protocol import JudgeRequest
from safecode_guard.policy import Policy
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.testing import ScriptedJudge, ScriptedVLM

HELP = "Run along the edge."
REFUSAL = "I can't help with that."
LONG = "a long answer " * 20

_FIELDS = ("max_active", "max_waiting", "max_batch", "cache")


class Slow(ScriptedVLM):
    """Takes ten milliseconds for a token."""

    def next_logits(self, ids: Any, images: Any) -> Any:
        time.sleep(0.01)
        return super().next_logits(ids, images)


def model(replies: Any = HELP, **options: Any) -> ChatTransformers:
    """A chat model on a scripted engine."""
    fields = {name: options.pop(name) for name in _FIELDS if name in options}
    return ChatTransformers.from_engine(ScriptedVLM(replies, **options), temperature=0, **fields)


def guarded(p_unsafe: Any = 0.1, *, policy: Any = None, **options: Any) -> SafeCoDeGuard:
    """A guard with a scripted judge."""
    judge = options.pop("judge", None) or ScriptedJudge(p_unsafe)
    inner = options.pop("model", None) or model()
    return SafeCoDeGuard(model=inner, judge=judge, policy=policy or Policy(), **options)


def judged_only(
    p_unsafe: Any = 0.1, inner: BaseChatModel | None = None, **policy: Any
) -> SafeCoDeGuard:
    """A guard that never steers, around a model that could not be."""
    judge = p_unsafe if isinstance(p_unsafe, ScriptedJudge) else ScriptedJudge(p_unsafe)
    return SafeCoDeGuard(
        model=inner or FakeListChatModel(responses=[HELP]),
        judge=judge,
        policy={"mode": "judge_only", **policy},
    )


def by_request(request: JudgeRequest) -> float:
    """Cliffs are dangerous, and nothing else."""
    return 0.95 if "cliff" in request.scene.request else 0.05


def merged(chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
    """The message that chunks add up to."""
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole
