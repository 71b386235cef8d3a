"""The remote judge before a real server on the loopback: the same weights, the same verdicts."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.messages import HumanMessage
from typer.testing import CliRunner

from safecode_guard import JudgeRequest, Policy, SafeCoDeCheck
from safecode_guard.cli.app import app
from safecode_guard.cli.opening import image_messages
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.judges.completions import body
from safecode_guard.judges.content import judge_content
from safecode_guard.judges.failsafe import run_many
from safecode_guard.judges.folders import family_in, folder_of
from safecode_guard.judges.http import HttpJudge
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.policy import HttpJudgeConfig
from safecode_guard.testing import ModelEndpoint, ScriptedVLM, serving
from safecode_guard.tiny.world import draw
from safecode_guard.turns.reading import read_turn
from tests.unit.judges.endpoints import KEY, scores

SCENES = int(os.environ.get("REMOTE_SCENES", "20"))
FAMILIES = ("path", "knife")
QUESTION = "How do I run faster?"


@pytest.fixture(scope="module")
def model() -> TransformersModel:
    return TransformersModel.load(folder_of("nano"))


@pytest.fixture(scope="module")
def url(model: TransformersModel) -> Iterator[str]:
    with serving(ModelEndpoint(model, name="nano").app()) as address:
        yield f"{address}/v1"


def remote(url: str, **fields: Any) -> HttpJudge:
    family = family_in(folder_of("nano"))
    assert family is not None
    given = {"url": url, "model": "nano", "judge_prompt": family.judge_prompt, **fields}
    return HttpJudge(HttpJudgeConfig(**given))


def scene(i: int) -> bytes:
    """The file of a drawn scene, every other one unsafe."""
    file = io.BytesIO()
    draw(i, FAMILIES[i // 2 % len(FAMILIES)], unsafe=i % 2 == 1).image.save(file, "PNG")
    return file.getvalue()


def messages(i: int) -> list[Any]:
    return image_messages(scene(i), QUESTION)


def request(i: int) -> JudgeRequest:
    return JudgeRequest.of_turn(read_turn(messages(i)))


def test_it_judges_as_the_local_judge_on_the_same_weights(
    url: str, model: TransformersModel
) -> None:
    requests = [request(i) for i in range(SCENES)]
    here = [LabelLogitsJudge(model).judge(one) for one in requests]
    with closing(remote(url)) as judge:
        there = run_many(judge, requests)
    apart = max(abs(a.p_unsafe - b.p_unsafe) for a, b in zip(here, there, strict=True))
    alarms = sum((j.p_unsafe or 0) > 0.5 for j in here)
    print(f"\n{SCENES} scenes, {alarms} unsafe: p_unsafe at most {apart:.1e} apart")
    assert 0 < alarms < SCENES
    assert apart < 1e-3
    for a, b in zip(here, there, strict=True):
        assert (a.p_unsafe > 0.5, a.label) == (b.p_unsafe > 0.5, b.label)
        assert b.label_mass == pytest.approx(a.label_mass, abs=1e-3)
        assert b.reply_form == "logprobs"


async def test_checks_at_once_are_neither_lost_nor_mixed_up(
    url: str, model: TransformersModel
) -> None:
    count = 64
    known = [LabelLogitsJudge(model).judge(request(i)).p_unsafe for i in range(count)]
    with closing(remote(url)) as judge:
        check = SafeCoDeCheck(judge=judge, policy=Policy(judge={"kind": "chat", "cache_size": 0}))
        verdicts = await asyncio.gather(*(check.acheck(messages(i)) for i in range(count)))
    assert len({verdict.id for verdict in verdicts}) == count
    for i, verdict in enumerate(verdicts):
        assert [image.sha256 for image in verdict.images] == [hashlib.sha256(scene(i)).hexdigest()]
        assert verdict.p_unsafe == pytest.approx(known[i], abs=1e-3)
        assert verdict.judge is not None
        assert verdict.judge.reply_form == "logprobs"


async def test_a_bare_client_is_hardly_faster() -> None:
    count, at_a_time = 64, 16

    class Fixed:
        """Answers every request alike, so that the client's own cost shows."""

        reply = json.dumps(scores(0.9)).encode()

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            while (await receive()).get("more_body"):
                pass
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": self.reply})

    async def bare(client: httpx.AsyncClient, one: JudgeRequest, config: Any) -> None:
        asked = body("logprobs", judge_content(one, judge.prompt), config)
        reply = await client.post("chat/completions", json=asked)
        assert reply.json()["choices"]

    one = request(1)
    with serving(Fixed()) as url, closing(remote(f"{url}/v1")) as judge:
        limits = httpx.Limits(max_connections=at_a_time)
        async with httpx.AsyncClient(base_url=f"{url}/v1", limits=limits) as client:
            rates: dict[str, list[float]] = {"judge": [], "bare": []}
            for _ in range(5):
                started = time.perf_counter()
                await asyncio.gather(*(judge.ajudge(one) for _ in range(count)))
                rates["judge"].append(count / (time.perf_counter() - started))
                started = time.perf_counter()
                await asyncio.gather(*(bare(client, one, judge.config) for _ in range(count)))
                rates["bare"].append(count / (time.perf_counter() - started))
    ratios = sorted(mine / other for mine, other in zip(*rates.values(), strict=True))
    median = {name: statistics.median(found) for name, found in rates.items()}
    print(
        f"\n{median['judge']:.0f} judgements/s, {median['bare']:.0f} bare requests/s: "
        f"{ratios[2]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    assert ratios[-1] >= 0.9  # others may have the machine, but not in every round


# -- other servers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "form", "label", "p"),
    [
        (frozenset({"logprobs", "json_schema"}), "logprobs", None, 0.9),
        (frozenset({"json_schema"}), "json", "unsafe", 0.8),
        (frozenset(), "word", "unsafe", None),
    ],
)
def test_it_makes_do_with_what_a_server_offers(
    offered: frozenset[str], form: str, label: str | None, p: float | None
) -> None:
    written = '{"label": "unsafe", "p_unsafe": 0.8, "categories": []}'

    def reply(seen: Any) -> str:
        asked = "JSON object" in seen.question
        return written if asked and "json_schema" in offered else "unsafe"

    vlm = ScriptedVLM(reply, p_unsafe=0.9)
    with (
        serving(ModelEndpoint(vlm, forms=offered).app()) as url,
        closing(HttpJudge(HttpJudgeConfig(url=f"{url}/v1", model="judge"))) as judge,
    ):
        found = judge.judge(request(1))
    assert (found.reply_form, found.label) == (form, label)
    assert found.p_unsafe == (None if p is None else pytest.approx(p, abs=1e-3))


# -- told at the start --------------------------------------------------------------------------


def doctor(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, Any]:
    done = CliRunner().invoke(app, ["doctor", "--json", *arguments], env=env)
    return done.exit_code, json.loads(done.stdout)


def test_the_doctor_asks_the_judge(url: str, tmp_path: Path) -> None:
    prompt = {"SAFECODE_JUDGE__JUDGE_PROMPT": str(remote(url).config.judge_prompt)}
    code, report = doctor("--judge", f"openai:{url}#nano", env=prompt)
    assert (code, report["problems"]) == (0, [])
    assert report["judge"]["read_by"] == "logprobs"
    code, report = doctor("-j", "nano")
    assert (code, report["judge"]["read_by"]) == (0, "logits")


def test_the_doctor_says_what_is_wrong_with_it(url: str) -> None:
    done = CliRunner().invoke(app, ["doctor", "--json", "-j", "lihgt"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no model 'lihgt'" in done.stderr
    assert "'light'" in done.stderr
    code, report = doctor("-j", f"openai:{url}#another")
    assert (code, report["judge"]["hint"]) == (1, "Check judge.url and judge.model.")


def test_the_doctor_says_that_a_key_is_wrong() -> None:
    locked = ModelEndpoint(ScriptedVLM(p_unsafe=0.9), api_key=KEY)
    with serving(locked.app()) as url:
        name = f"openai:{url}/v1#judge"
        code, report = doctor("-j", name, env={"SAFECODE_JUDGE__API_KEY": "sk-wrong"})
        assert (code, report["judge"]["hint"]) == (1, "Check judge.api_key.")
        assert "401" in report["judge"]["error"]
        assert "sk-wrong" not in json.dumps(report)
        code, report = doctor("-j", name, env={"SAFECODE_JUDGE__API_KEY": KEY})
        assert (code, report["judge"]["p_unsafe"]) == (0, pytest.approx(0.9, abs=1e-3))


def test_the_cause_stands_in_the_verdict_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with (
        serving(ModelEndpoint(ScriptedVLM(), api_key=KEY).app()) as url,
        closing(HttpJudge(HttpJudgeConfig(url=f"{url}/v1", model="judge"))) as judge,
    ):
        verdict = SafeCoDeCheck(judge=judge).check([HumanMessage(messages(1)[0].content)])
    cause = "JudgeUnavailable: its endpoint wants another API key (status 401)"
    assert verdict.error == cause
    assert any(cause in r.getMessage() and r.levelname == "WARNING" for r in caplog.records)
    assert QUESTION not in caplog.text
