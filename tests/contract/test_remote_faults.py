"""What an endpoint can do wrong, at every stage: nothing passes, and a dead one costs nothing."""

from __future__ import annotations

import asyncio
import base64
import io
import math
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
import respx
from langchain_core.messages import BaseMessage, HumanMessage
from PIL import Image

from safecode_guard import Policy, SafeCoDeCheck
from safecode_guard.errors import JudgeError
from safecode_guard.judges.http import HttpJudge
from safecode_guard.policy import HttpJudgeConfig
from safecode_guard.taxonomy import STAGES
from safecode_guard.testing import ScriptedJudge
from safecode_guard.verdict import Verdict
from tests.contract.test_faults import arguments, conversation
from tests.messages import QUERY, ask
from tests.unit.judges.endpoints import PATH, QUICK, answer, judge, scores, text, top

Fault = Any
"""What respx takes as a side effect: an error, a reply, or a function of the request."""


async def slow(request: httpx.Request) -> httpx.Response:
    await asyncio.sleep(30)
    return answer(scores(0.1))


async def dripping(request: httpx.Request) -> httpx.Response:
    async def drops() -> AsyncIterator[bytes]:
        for byte in answer(scores(0.1)).content:
            yield bytes([byte])
            await asyncio.sleep(0.02)

    return httpx.Response(200, content=drops())


def raw(body: bytes, kind: str = "application/json") -> httpx.Response:
    return httpx.Response(200, content=body, headers={"content-type": kind})


WHOLE = answer(scores(0.1)).content
FAULTS: dict[str, Fault] = {
    "refused": httpx.ConnectError("refused"),
    "no name": httpx.ConnectError("nodename nor servname provided"),
    "connects slowly": httpx.ConnectTimeout("slow"),
    "hangs up": httpx.RemoteProtocolError("server disconnected"),
    "breaks off": httpx.ReadError("reset"),
    "slow": slow,
    "drip": dripping,
    **{
        f"status {status}": answer({"error": {"message": "no"}}, status)
        for status in (301, 307, 400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 504)
    },
    "empty": raw(b""),
    "truncated": raw(WHOLE[:-20]),
    "HTML": raw(b"<html><body>Sign in</body></html>", "text/html"),
    "another schema": answer({"label": "safe", "p_unsafe": 0.0}),
    "no choice": answer({"choices": []}),
    "two choices": answer({"choices": text("safe")["choices"] * 2}),
    "huge": raw(b" " * 2_000_000 + WHOLE),
    "compressed": httpx.Response(
        200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"\x1f\x8b")
    ),
    "another label": answer(top(("harmless", -0.1), ("fine", -3.0))),
    "NaN": raw(WHOLE.replace(b'"logprob":', b'"logprob":NaN,"x":')),
    "no log-probability": answer(top(("safe", 0.7))),
    "more than all": answer(top(("safe", -0.01), (" safe", -0.01))),
    "nothing written": answer(text(None)),
    "a doubt": answer(text("safe, unless someone runs")),
    "cut off": answer(text("safe", finish="length")),
    "a refusal": answer(text("safe", refusal="I cannot judge this.")),
    "a contradiction": answer(text('{"label": "safe", "p_unsafe": 0.9, "categories": []}')),
}


@pytest.fixture
def route() -> Iterator[Any]:
    with respx.mock(assert_all_called=False) as router:
        yield router.post(PATH)


def checked(faulty: HttpJudge, stage: str, action: str, *, later: bool) -> Verdict:
    policy = Policy.load({"judge": {"kind": "chat"}, "actions": {"judge_error": action}})
    check = SafeCoDeCheck(judge=faulty, policy=policy)
    if later:
        return asyncio.run(check.acheck(conversation(stage), **arguments(stage)))
    return check.check(conversation(stage), **arguments(stage))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_policys_action_follows_and_the_cause_is_told(
    route: Any, fault: Fault, stage: str
) -> None:
    route.side_effect = fault if callable(fault) else [fault] * 99
    guide = "guide" if stage == "input" else "block"
    cases = (("review", "review", False), ("block", "block", True), ("guide", guide, False))
    with closing(judge(timeout_s=0.1, breaker_failures=99)) as faulty:
        for action, expected, later in cases:
            verdict = checked(faulty, stage, action, later=later)
            assert (verdict.action, verdict.label, verdict.stage) == (expected, None, stage)
            assert verdict.degraded
            assert verdict.p_unsafe is None
            assert str(verdict.error).startswith(("Judge", "the judge's reply could not be read"))


def test_without_a_fault_the_table_would_pass(route: Any) -> None:
    route.return_value = answer(scores(0.01))
    with closing(judge()) as sound:
        assert checked(sound, "input", "block", later=False).label == "safe"


@pytest.mark.parametrize("reply", ["logprobs", "json", "word"])
@pytest.mark.parametrize("wrong", [text("banana"), top(("banana", -0.1)), top(("safe", math.e))])
def test_a_fixed_form_is_as_strict(route: Any, reply: Any, wrong: Any) -> None:
    route.return_value = answer(wrong)
    with closing(judge(reply=reply)) as strict:
        verdict = SafeCoDeCheck(judge=strict).check(ask())
    assert (verdict.action, verdict.label) == ("review", None)


@pytest.fixture
def silent() -> Iterator[str]:
    """An address where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def noise(size: tuple[int, int]) -> dict[str, Any]:
    """A picture that takes long to compress."""
    file = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return {"type": "image", "base64": data, "mime_type": "image/png"}


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@pytest.mark.parametrize("size", [(24, 16), (900, 900)], ids=["small", "large"])
@pytest.mark.parametrize("where", ["silent", "closed"])
def test_with_the_endpoint_down_a_turn_soon_costs_no_timeout(
    where: str, size: tuple[int, int], silent: str
) -> None:
    url = silent if where == "silent" else "http://127.0.0.1:9/v1"
    given = QUICK | {"timeout_s": 0.5, "breaker_failures": 2}
    dead = HttpJudge(HttpJudgeConfig(url=url, model="m", **given))
    policy = Policy(judge={"kind": "chat", "cache_size": 0})
    down = SafeCoDeCheck(judge=dead, policy=policy)
    plain = SafeCoDeCheck(judge=ScriptedJudge(JudgeError("down")), policy=policy)
    turn: list[BaseMessage] = [HumanMessage([noise(size), {"type": "text", "text": QUERY}])]
    while "left alone" not in str((verdict := down.check(turn)).error):
        assert verdict.action == "review"
    assert verdict.action == "review"
    more = min(median_more(down, plain, turn) for _ in range(3))  # others may have the machine
    print(f"\nendpoint {where}, picture {size}, breaker open: {more * 1000:.2f} ms more a turn")
    dead.close()
    assert more <= 0.005


def median_more(a: SafeCoDeCheck, b: SafeCoDeCheck, turn: list[BaseMessage]) -> float:
    pairs = [(seconds(lambda: a.check(turn)), seconds(lambda: b.check(turn))) for _ in range(15)]
    return statistics.median(one - other for one, other in pairs)


async def test_nor_does_it_when_asked_by_many(silent: str) -> None:
    given = QUICK | {"timeout_s": 0.5, "breaker_failures": 3}
    dead = HttpJudge(HttpJudgeConfig(url=silent, model="m", **given))
    down = SafeCoDeCheck(judge=dead, policy=Policy(judge={"kind": "chat", "cache_size": 0}))
    await asyncio.gather(*(down.acheck(ask()) for _ in range(8)))
    started = time.perf_counter()
    verdicts = await asyncio.gather(*(down.acheck(ask()) for _ in range(64)))
    spent = time.perf_counter() - started
    dead.close()
    assert {verdict.action for verdict in verdicts} == {"review"}
    assert all("left alone" in str(verdict.error) for verdict in verdicts)
    print(f"\n64 checks at once, breaker open: {spent / 64 * 1000:.2f} ms each")
    assert spent / 64 <= 0.02
