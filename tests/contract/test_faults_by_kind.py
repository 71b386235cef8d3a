"""Each kind of judge, broken in ways of its own, at every stage: the policy's action follows."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, cast

import httpx
import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from safecode_guard import Policy, SafeCoDeCheck
from safecode_guard.errors import JudgeError, ModelError
from safecode_guard.judges.calibration import CalibratedJudge, Calibration
from safecode_guard.judges.chat import ChatJudge
from safecode_guard.judges.combine import CascadeJudge, EnsembleJudge, FallbackJudge, Rule
from safecode_guard.judges.guard_models import GuardModelJudge, ImageGuardJudge
from safecode_guard.judges.http import HttpJudge
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.local import LocalJudge
from safecode_guard.judges.protocol import BaseJudge, Judge
from safecode_guard.policy import HttpJudgeConfig, LocalJudgeConfig
from safecode_guard.taxonomy import STAGES
from safecode_guard.testing import Delay, ScriptedJudge, ScriptedVLM
from safecode_guard.turns.turn import Turn
from tests.contract.test_faults import Answering, arguments, conversation, forged
from tests.unit.judges.endpoints import answer, scores

Make = Callable[[], Judge]


def http(reply: Callable[[httpx.Request], httpx.Response], **fields: Any) -> Make:
    given = {"url": "http://judge.test/v1", "model": "m", "retries": 0, **fields}

    def streamed(request: httpx.Request) -> httpx.Response:
        told = reply(request)
        headers = {k: v for k, v in told.headers.items() if k != "content-length"}
        stream = httpx.ByteStream(told.content)
        return httpx.Response(told.status_code, headers=headers, stream=stream)

    return lambda: HttpJudge(HttpJudgeConfig(**given), transport=httpx.MockTransport(streamed))


def refusing(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def nonsense(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=b"<html>safe</html>")


def failing(request: httpx.Request) -> httpx.Response:
    return answer(scores(0.01), 503)


class Writing:
    """A guard's model that writes one text, or raises."""

    id = "writing"

    def __init__(self, text: str | Exception) -> None:
        self._text = text

    def write(self, turns: Sequence[Turn], **options: Any) -> list[str]:
        if isinstance(self._text, Exception):
            raise self._text
        return [self._text] * len(turns)


class Classifying:
    """A guard's classifier that says one thing of every picture."""

    id = "classifying"

    def __init__(self, found: Any) -> None:
        self._found = found

    def violations(self, images: Sequence[Any]) -> list[Mapping[str, float]]:
        return [self._found] * len(images)


def guard(text: str | Exception) -> Make:
    return lambda: GuardModelJudge("llama_guard_4", Writing(text))


def chat(text: str) -> Make:
    return lambda: ChatJudge(GenericFakeChatModel(messages=iter([AIMessage(text)] * 9)), id="chat")


def silent_chat() -> Judge:
    return ChatJudge(GenericFakeChatModel(messages=iter([])), id="chat")


def raising(error: Exception) -> Callable[[LocalJudgeConfig | None], Any]:
    def load(config: LocalJudgeConfig | None) -> Any:
        raise error

    return load


def local(engine: Any) -> Make:
    return lambda: LocalJudge(
        LocalJudgeConfig(model="m"),
        load=raising(engine) if isinstance(engine, Exception) else lambda _: engine,
    )


def down(number: int = 0) -> ScriptedJudge:
    return ScriptedJudge(JudgeError("down"), id=f"down-{number}")


def odd() -> Judge:
    """A judge whose finding skipped every check."""
    return Answering(forged(label="safe", p_unsafe=0.9))


def calm() -> ScriptedJudge:
    return ScriptedJudge(0.01, id="calm")


def ensemble(rule: str, *members: Callable[[], Judge], **options: Any) -> Make:
    return lambda: EnsembleJudge([make() for make in members], rule=cast("Rule", rule), **options)


def nested() -> Judge:
    """Cascades three deep, of which nobody can say anything."""
    inner: Judge = down(0)
    for number in range(3):
        inner = CascadeJudge([ScriptedJudge(0.5, id=f"unsure-{number}"), inner])
    return inner


def calibrated(**changes: Any) -> Make:
    def make() -> Judge:
        judge = LabelLogitsJudge(ScriptedVLM(p_unsafe=0.01))
        values = {
            "judge_id": judge.id,
            "prompt_version": judge.prompt_version,
            "temperature": 1.0,
            "bias": 0.0,
        }
        return CalibratedJudge(judge, Calibration(**(values | changes)))

    return make


FAULTS: dict[str, Make] = {
    "http: refused": http(refusing),
    "http: no completion": http(nonsense),
    "http: status 503": http(failing),
    "http: request over its limit": http(failing, max_request_bytes=10),
    "guard model: prose and a verdict": guard("The picture is harmless.\nsafe"),
    "guard model: a verdict and prose": guard("safe\nbecause nothing happens"),
    "guard model: nothing": guard(""),
    "guard model: unsafe without a code": guard("unsafe"),
    "guard model: broken": guard(ModelError("out of memory")),
    "guard model: cannot be loaded": lambda: GuardModelJudge(
        "llama_guard_4", partial(raising(OSError("no file")), None), id="guard"
    ),
    "classifier: no number": lambda: ImageGuardJudge(
        Classifying({"violence": 0.1, "sexual": math.nan})
    ),
    "classifier: nothing": lambda: ImageGuardJudge(Classifying({})),
    "chat: a doubt": chat("safe, unless somebody runs"),
    "chat: nothing": chat(""),
    "chat: broken": silent_chat,
    "local: cannot be loaded": local(OSError("no file")),
    "local: broken": local(ScriptedVLM(error=ModelError("CUDA out of memory"))),
    "local: no number": local(ScriptedVLM(p_unsafe=lambda scene: math.nan)),
    "cascade: nobody answers": lambda: CascadeJudge([down(), down(1)]),
    "cascade: the last fails": lambda: CascadeJudge([ScriptedJudge(0.5), down()]),
    "cascade: nonsense, then nobody": lambda: CascadeJudge([odd(), down()]),
    "cascade: three deep": nested,
    "fallback: nobody answers": lambda: FallbackJudge([down(), odd()]),
    "ensemble: any, one fails": ensemble("any", calm, down),
    "ensemble: majority, one fails": ensemble("majority", calm, calm, down),
    "ensemble: mean, one talks nonsense": ensemble("mean", calm, odd),
    "ensemble: log-odds, one fails": ensemble("log_odds", calm, down),
    "ensemble: fewer than needed": ensemble("mean", calm, down, odd, needed=2),
    "ensemble: of composed ones": ensemble("any", calm, nested),
    "calibrated: another question": calibrated(prompt_version="another"),
    "own: late": lambda: ScriptedJudge(Delay(5.0, 0.01)),
}


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_policys_action_follows(fault: Make, stage: str, asynchronous: bool) -> None:
    guide = "guide" if stage == "input" else "block"
    for action, expected in (("review", "review"), ("block", "block"), ("guide", guide)):
        policy = Policy.load(
            {"judge": {"kind": "chat", "timeout_s": 0.3}, "actions": {"judge_error": action}}
        )
        with closing(fault()) as judge:
            check = SafeCoDeCheck(judge=judge, policy=policy)
            if asynchronous:
                verdict = asyncio.run(check.acheck(conversation(stage), **arguments(stage)))
            else:
                verdict = check.check(conversation(stage), **arguments(stage))
        assert (verdict.action, verdict.label, verdict.stage) == (expected, None, stage)
        assert verdict.degraded
        assert verdict.error


@pytest.mark.parametrize("stage", STAGES)
def test_without_a_fault_each_kind_passes(stage: str) -> None:
    engine = ScriptedVLM(p_unsafe=0.01)
    sound: list[Judge] = [
        http(lambda request: answer(scores(0.01)))(),
        GuardModelJudge("llama_guard_4", Writing("safe")),
        ImageGuardJudge(Classifying({"violence": 0.01})),
        chat("safe")(),
        local(engine)(),
        CascadeJudge([calm(), down()]),
        FallbackJudge([down(), calm()]),
        *(ensemble(rule, calm, calm)() for rule in ("any", "majority", "mean", "log_odds")),
        calibrated()(),
    ]
    for judge in sound:
        verdict = SafeCoDeCheck(judge=judge).check(conversation(stage), **arguments(stage))
        assert (verdict.label, verdict.error) == ("safe", None), judge.id
        judge.close()


def test_the_table_has_every_kind() -> None:
    kinds = {type(make()).__mro__[:-1] for make in FAULTS.values()}
    made = {kind for mro in kinds for kind in mro}
    assert {
        *(HttpJudge, GuardModelJudge, ImageGuardJudge, ChatJudge, LocalJudge, CalibratedJudge),
        *(CascadeJudge, FallbackJudge, EnsembleJudge, BaseJudge),
    } <= made
