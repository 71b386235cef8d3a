"""RAS's risk as a judge: a verdict without any question about safety being answered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from safecode_guard.errors import JudgeError, ModelError
from safecode_guard.judges.deadlines import remaining
from safecode_guard.judges.protocol import BaseJudge, JudgeAbilities, JudgeRequest
from safecode_guard.models.probing import probe
from safecode_guard.models.protocol import Engine
from safecode_guard.risk.measure import Risk, risks
from safecode_guard.risk.prompts import VERSION
from safecode_guard.risk.prototypes import Prototypes
from safecode_guard.verdict import Judgement


class RasJudge(BaseJudge):
    """Judges users' turns by how near the guarded model is to refusing them: ``p_unsafe = c``.

    Tool calls, results and answers are none of its business: asked about one, the check fails.

    Example:
        >>> judge = RasJudge(engine, Prototypes.read(path))              # doctest: +SKIP
        >>> judge.judge(JudgeRequest.of_turn(turn)).p_unsafe             # doctest: +SKIP
        0.93
    """

    prompt_version = f"ras-{VERSION}"

    def __init__(self, engine: Engine, prototypes: Prototypes, *, caption: bool = False) -> None:
        """Make the judge; the model is not asked anything yet.

        Args:
            engine: The guarded model.
            prototypes: Of that model.
            caption: Hand out what the model says of the pictures; it costs nothing more.

        Raises:
            PolicyError: If the prototypes are another model's.
            JudgeError: If the engine keeps its logits to itself.
        """
        prototypes.check(engine.id)
        if not engine.abilities.logits:
            raise JudgeError(f"The model {engine.id!r} keeps its logits to itself.")
        self.engine = engine
        self.prototypes = prototypes
        self.caption = caption
        self.id = f"ras:{prototypes.id}"
        self.abilities = JudgeAbilities(honours_deadline=True, batches=engine.abilities.batches)

    def judge(self, request: JudgeRequest) -> Judgement:
        """Judge one request.

        Raises:
            JudgeTimeout: If the request's deadline has passed before the model is asked.
            JudgeError: If it is no user's turn, or the model cannot be asked.
        """
        return self.judge_many([request])[0]

    def judge_many(self, requests: list[JudgeRequest]) -> list[Judgement]:
        """Judge requests in one batch; raises as `judge` does."""
        started = time.monotonic()
        for request in requests:
            remaining(request.deadline)
            if request.stage != "input":
                raise JudgeError(
                    f"RAS judges users' turns, and nothing at stage {request.stage!r}.",
                    hint="Give that stage a judge of its own.",
                    reason="RAS judges users' turns alone",
                )
        found = self._found(requests)
        elapsed = (time.monotonic() - started) * 1000
        return [self._judgement(risk, elapsed) for risk in found]

    def _found(self, requests: Sequence[JudgeRequest]) -> list[Risk]:
        turns = [request.scene.turn for request in requests]
        try:
            return risks(partial(probe, self.engine, together=True), turns, self.prototypes)
        except ModelError as error:
            raise JudgeError("The judging model could not be asked.", hint=error.hint) from error

    def _judgement(self, risk: Risk, latency_ms: float) -> Judgement:
        return Judgement(
            judge_id=self.id,
            prompt_version=self.prompt_version,
            p_unsafe=risk.certainty,
            caption=(risk.context or None) if self.caption else None,
            parse_status="logits",
            latency_ms=latency_ms,
        )
