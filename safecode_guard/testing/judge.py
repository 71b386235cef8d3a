"""A judge that answers by script."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from safecode_guard.judges.protocol import BaseJudge, JudgeAbilities, JudgeRequest
from safecode_guard.taxonomy import LABELS, Label
from safecode_guard.verdict import Judgement


@dataclass(frozen=True)
class Delay:
    """A scripted answer that comes late."""

    seconds: float
    then: float | Label | Judgement | Exception


Answer = float | Label | Judgement | Exception | Delay


class ScriptedJudge(BaseJudge):
    """A judge that answers by script.

    A number is ``p_unsafe``, a word is a label, an exception is raised, a `Judgement` is given as
    it is, a `Delay` comes late. A list is answered in order, its last entry for ever; a function
    answers by the request.

    Example:
        >>> judge = ScriptedJudge([0.9, "undecided", JudgeError("down")])
        >>> guard = SafeCoDeGuard(model=model, judge=judge)          # doctest: +SKIP
    """

    prompt_version = "scripted-1"

    def __init__(
        self,
        script: Answer | Sequence[Answer] | Callable[[JudgeRequest], Answer] = 0.1,
        *,
        id: str = "scripted",
        abilities: JudgeAbilities = JudgeAbilities(),  # noqa: B008
    ) -> None:
        self.id = id
        self.abilities = abilities
        self.requests: list[JudgeRequest] = []
        """Every request so far, in order."""
        self.closed = False
        self._script = script
        self._lock = threading.Lock()

    def judge(self, request: JudgeRequest) -> Judgement:
        """Answer by the script; raises what the script says."""
        answer = self._next(request)
        if isinstance(answer, Delay):
            time.sleep(answer.seconds)
            answer = answer.then
        return self._judgement(answer)

    async def ajudge(self, request: JudgeRequest) -> Judgement:
        """Answer by the script, delays without blocking the event loop."""
        answer = self._next(request)
        if isinstance(answer, Delay):
            await asyncio.sleep(answer.seconds)
            answer = answer.then
        return self._judgement(answer)

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True

    def _next(self, request: JudgeRequest) -> Answer:
        with self._lock:
            position = len(self.requests)
            self.requests.append(request)
        if callable(self._script):
            return self._script(request)
        if isinstance(self._script, Sequence) and not isinstance(self._script, str):
            return self._script[min(position, len(self._script) - 1)]
        return self._script

    def _judgement(self, answer: Answer) -> Judgement:
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Judgement):
            return answer
        known = {"judge_id": self.id, "prompt_version": self.prompt_version}
        if isinstance(answer, str):
            if answer not in LABELS:
                raise ValueError(f"{answer!r} is no label; use one of {LABELS}")
            return Judgement(**known, label=answer)
        return Judgement(**known, p_unsafe=cast(float, answer), parse_status="logits")
