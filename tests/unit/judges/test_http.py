from __future__ import annotations

import asyncio
import gc
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import respx

from safecode_guard import Policy, PolicyError, SafeCoDeSettings
from safecode_guard.errors import JudgeError, JudgeTimeout, JudgeUnavailable
from safecode_guard.judges.failsafe import arun_judge, run_judge, run_many
from safecode_guard.judges.http import HttpJudge
from safecode_guard.judges.protocol import JudgeRequest
from tests.unit.judges.endpoints import KEY, PATH, URL, answer, config, judge, scores, text, top

Make = Callable[..., JudgeRequest]
JSON = '{"label": "unsafe", "p_unsafe": 0.8, "categories": ["situational"]}'


@pytest.fixture
def route() -> Iterator[Any]:
    with respx.mock(assert_all_called=False) as router:
        yield router.post(PATH)


def form_of(request: httpx.Request) -> str:
    asked = request.content
    if b'"logprobs"' in asked:
        return "logprobs"
    return "json" if b'"response_format"' in asked else "word"


def replying(**forms: httpx.Response) -> Callable[[httpx.Request], httpx.Response]:
    """An endpoint that takes exception to a form of reply that is not named."""
    return lambda request: forms.get(form_of(request), answer({"error": {}}, 400))


async def test_it_gives_a_probability_both_ways(route: Any, request_for: Make) -> None:
    route.return_value = answer(scores(0.9))
    made = judge()
    for found in (made.judge(request_for()), await made.ajudge(request_for())):
        assert found.p_unsafe == pytest.approx(0.9)
        assert (found.parse_status, found.reply_form) == ("logits", "logprobs")
    made.close()


@pytest.mark.parametrize(
    ("forms", "used", "label", "p"),
    [
        ({"logprobs": answer(scores(0.9))}, "logprobs", None, 0.9),
        ({"json": answer(text(JSON))}, "json", "unsafe", 0.8),
        ({"word": answer(text("safe"))}, "word", "safe", None),
        # it knows the parameters and ignores them
        ({"logprobs": answer(text("u")), "json": answer(text(JSON))}, "json", "unsafe", 0.8),
        ({"logprobs": answer(top(("<think>", -0.1))), "word": answer(text("safe"))},
         "word", "safe", None),
        ({"json": answer(text("It is unsafe.")), "word": answer(text("unsafe"))},
         "word", "unsafe", None),
    ],
)  # fmt: skip
def test_the_first_form_that_can_be_read_is_kept_to(
    route: Any, request_for: Make, forms: Any, used: str, label: str | None, p: float | None
) -> None:
    route.side_effect = replying(**forms)
    made = judge()
    for found in (made.judge(request_for()), made.judge(request_for())):
        assert (found.reply_form, found.label) == (used, label)
        assert found.p_unsafe == (None if p is None else pytest.approx(p))
        assert found.categories == ()  # which form is used is not known before
    asked = [form_of(call.request) for call in route.calls]
    assert asked[-1] == asked[-2] == used
    made.close()


def test_a_form_that_worked_is_not_left_for_a_request_that_is_refused(
    route: Any, request_for: Make
) -> None:
    route.side_effect = replying(logprobs=answer(scores(0.9)))
    made = judge()
    made.judge(request_for())
    route.side_effect = replying(word=answer(text("safe")))
    with pytest.raises(JudgeUnavailable):
        made.judge(request_for())
    made.close()


def test_a_form_may_be_fixed_and_json_names_hazards(route: Any, request_for: Make) -> None:
    route.return_value = answer(text(JSON))
    made = judge(reply="json")
    assert made.abilities.categories
    assert made.judge(request_for()).categories == ("situational",)
    made.close()
    scored = judge(reply="logprobs")
    with pytest.raises(JudgeError) as caught:
        scored.judge(request_for())
    assert caught.value.reason == "its endpoint gives no probabilities of tokens"
    scored.close()


def test_a_question_of_the_models_own_is_asked(route: Any, request_for: Make) -> None:
    route.return_value = answer(scores(0.9))
    made = judge(judge_prompt="{query}\nSafe?")
    made.judge(request_for("Run?"))
    assert b'"Run?\\nSafe?"' in route.calls.last.request.content
    assert made.prompt_version != judge().prompt_version
    made.close()


def test_many_are_judged_side_by_side_and_fail_alone(route: Any, request_for: Make) -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.2)
        bad = b"bad" in request.content
        return (
            answer({}, 401) if bad else answer(scores(0.9 if b"cliff" in request.content else 0.1))
        )

    route.side_effect = slow
    made = judge()
    started = time.monotonic()
    found = run_many(made, [request_for(t) for t in ("a cliff", "bad", "a park", "a lake")])
    assert time.monotonic() - started < 0.7
    assert [j.p_unsafe and round(j.p_unsafe, 2) for j in found] == [0.9, None, 0.1, 0.1]
    assert found[1].failed is not None
    assert made.judge_many([]) == []
    made.close()


async def test_the_deadline_of_a_request_holds_both_ways(route: Any, request_for: Make) -> None:
    async def silent(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        return answer(scores(0.1))

    route.side_effect = silent
    made, started = judge(), time.monotonic()
    for found in (
        run_judge(made, request_for(), timeout_s=0.2),
        await arun_judge(made, request_for(), timeout_s=0.2),
    ):
        assert "its endpoint is too slow" in str(found.failed)
    quick = judge(timeout_s=0.1)
    with pytest.raises(JudgeTimeout):
        quick.judge(request_for())
    assert time.monotonic() - started < 2
    quick.close()
    made.close()


async def test_a_cancelled_check_is_cancelled(route: Any, request_for: Make) -> None:
    ended = threading.Event()

    async def silent(request: httpx.Request) -> httpx.Response:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()
        return answer(scores(0.1))

    route.side_effect = silent
    made = judge()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(made.ajudge(request_for()), 0.3)
    assert await asyncio.to_thread(ended.wait, 2)
    made.close()


def test_threads_and_loops_share_one_connection(route: Any, request_for: Make) -> None:
    route.return_value = answer(scores(0.9))
    made = judge()
    for _ in range(3):  # each with an event loop of its own
        assert asyncio.run(made.ajudge(request_for())).p_unsafe == pytest.approx(0.9)
    line = made._line
    made.judge(request_for())
    assert made._line is line
    made.close()


def test_closed_it_leaves_no_thread_and_asked_again_it_connects_again(
    route: Any, request_for: Make
) -> None:
    def threads() -> int:
        return sum(thread.name == "safecode-judge-http" for thread in threading.enumerate())

    route.return_value = answer(scores(0.9))
    made, before = judge(), threads()
    assert made.judge(request_for()).p_unsafe == pytest.approx(0.9)
    assert threads() == before + 1
    made.close()
    made.close()
    assert threads() == before
    assert made.judge(request_for()).p_unsafe == pytest.approx(0.9)
    del made
    gc.collect()
    assert threads() == before  # forgotten, it is closed


def test_in_a_forked_process_it_connects_anew(request_for: Make, monkeypatch: Any) -> None:
    made = judge()
    line = made._connected()
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    other = made._connected()
    assert other is not line
    other.close()
    monkeypatch.undo()
    line.close()


# -- the key ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [answer({}, 401), httpx.ConnectError(KEY), answer({"a": KEY})])
def test_the_key_is_nowhere_to_be_seen(
    route: Any, request_for: Make, reply: Any, caplog: pytest.LogCaptureFixture
) -> None:
    route.side_effect = [reply]
    made = judge(api_key=KEY)
    with caplog.at_level(logging.WARNING):
        found = run_judge(made, request_for())
    route.side_effect = [reply]
    with pytest.raises(JudgeError) as caught:
        made.judge(request_for())
    seen = [repr(made.config), str(made.config), made.id, made.prompt_version, str(caught.value)]
    seen += [found.model_dump_json(), caplog.text, made.config.model_dump_json()]
    policy = Policy(judge=made.config)
    seen += [repr(policy), policy.model_dump_json(), str(policy.model_dump())]
    assert not any(KEY in one for one in seen)
    assert policy.digest() == Policy(judge=config()).digest()
    made.close()


def test_a_wrong_policy_does_not_show_it_either() -> None:
    wrong = {"kind": "http", "url": URL, "modle": "m", "api_key": KEY}
    with pytest.raises(PolicyError) as caught:
        Policy.load({"judge": wrong})
    assert KEY not in f"{caught.value}{caught.value.__cause__}"


def test_the_key_survives_what_a_policy_goes_through() -> None:
    policy = Policy(judge=config(api_key=KEY)).updated(thresholds={"unsafe": 0.7})
    for kept in (policy, pickle.loads(pickle.dumps(policy))):
        assert kept.judge.kind == "http"
        assert kept.judge.api_key is not None
        assert kept.judge.api_key.get_secret_value() == KEY


# -- configuration ------------------------------------------------------------------------------


def test_the_environment_configures_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"KIND": "http", "URL": URL, "MODEL": "m", "API_KEY": KEY, "RETRIES": "5"}
    for name, value in given.items():
        monkeypatch.setenv(f"SAFECODE_JUDGE__{name}", value)
    found = SafeCoDeSettings().policy().judge
    assert found.kind == "http"
    assert (found.url, found.model, found.retries) == (URL, "m", 5)
    assert found.api_key is not None
    assert found.api_key.get_secret_value() == KEY


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "judge.test/v1"}, {"url": "ftp://judge.test"}, {"url": "http://u:p@judge.test"},
        {"url": "http://judge.test/v1?key=x"}, {"url": "http:///v1"}, {"model": ""},
        {"judge_prompt": "Safe?"}, {"caption": True}, {"retries": -1}, {"concurrency": 0},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        Policy.load({"judge": {"kind": "http", "url": URL, "model": "m", **wrong}})


def test_its_name_holds_no_path_and_tells_configurations_apart() -> None:
    assert judge(model="/srv/models/judge").id.startswith("http:judge@")
    assert judge(model="org/judge").id.startswith("http:judge@")
    ids = {judge(**fields).id for fields in ({}, {"model": "n"}, {"url": f"{URL}x"})}
    assert len(ids) == 3
    assert judge(url=PATH).config.url == URL
    assert isinstance(judge(), HttpJudge)
