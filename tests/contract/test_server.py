"""The server as its clients meet it: real sockets, the openai client, curl's bytes."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from safecode_guard import ChatTransformers, JudgeError, Policy, SafeCoDeGuard, Verdict
from safecode_guard.server import ServerConfig, make_app
from safecode_guard.testing import Delay, ScriptedJudge, ScriptedVLM, serving
from tests.messages import QUERY, png

KEY = "a-key-of-some-length"


def guard_of(script: Any = "Run along.", judge: Any = 0.1, **policy: Any) -> SafeCoDeGuard:
    model = ChatTransformers.from_engine(ScriptedVLM(script), temperature=0)
    own = judge if judge is None or hasattr(judge, "judge") else ScriptedJudge(judge)
    return SafeCoDeGuard(model=model, judge=own, policy=Policy().updated(**policy))


def picture(colour: str = "red", data: bytes | None = None) -> dict[str, Any]:
    encoded = base64.b64encode(data or png(colour)).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}


def turn(text: str = QUERY, *pictures: dict[str, Any]) -> list[dict[str, Any]]:
    shown = pictures or (picture(),)
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


def body(text: str = QUERY, **more: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": turn(text), **more}


class Client:
    """Asks one server, in the four forms that clients have."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.api = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)

    def post(self, path: str = "/v1/chat/completions", **more: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=30, **more)

    def ask(self, form: str, messages: Any, **more: Any) -> tuple[str | None, str, Any]:
        """Return text, finish reason and what is told of the verdict."""
        given = {"model": "scripted", "messages": messages, **more}
        if form == "invoke":
            whole = self.api.chat.completions.create(**given)
        elif form == "ainvoke":
            whole = asyncio.run(self._awhole(given))
        else:
            chunks = self._chunks(form, given)
            text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
            return text, reasons[-1], chunks[-1].model_extra["safecode"]
        choice = whole.choices[0]
        return choice.message.content, choice.finish_reason, whole.model_extra["safecode"]

    def _chunks(self, form: str, given: Any) -> list[Any]:
        if form == "stream":
            return list(self.api.chat.completions.create(stream=True, **given))

        async def chunks() -> list[Any]:
            async with self._aclient() as client:
                stream = await client.chat.completions.create(stream=True, **given)
                return [chunk async for chunk in stream]

        return asyncio.run(chunks())

    async def _awhole(self, given: Any) -> Any:
        async with self._aclient() as client:
            return await client.chat.completions.create(**given)

    def _aclient(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0)


def wait_for(there: Callable[[], Any]) -> None:
    """Wait for what the server does after its last byte."""
    end = time.monotonic() + 10
    while not there() and time.monotonic() < end:
        time.sleep(0.01)


FORMS = pytest.mark.parametrize("form", ["invoke", "ainvoke", "stream", "astream"])


@pytest.fixture
def serve() -> Iterator[Any]:
    with ExitStack() as stack:

        def start(guard: SafeCoDeGuard, **config: Any) -> Client:
            url = stack.enter_context(serving(make_app(guard, "scripted", ServerConfig(**config))))
            client = Client(url)
            stack.callback(client.api.close)
            return client

        yield start


# -- answers and verdicts --------------------------------------------------------------------------


@FORMS
def test_an_answer_comes_with_its_verdict(form: str, serve: Any) -> None:
    text, reason, told = serve(guard_of()).ask(form, turn())
    assert (text, reason) == ("Run along.", "stop")
    assert (told["action"], told["label"]) == ("guide", "safe")
    (verdict,) = (Verdict.model_validate(each) for each in told["verdicts"])
    assert verdict.decoding is not None


@FORMS
@pytest.mark.parametrize("action", ["block", "review"])
def test_a_turn_that_is_stopped_says_so(form: str, action: str, serve: Any) -> None:
    guard = guard_of(judge=0.9, actions={"unsafe": action})
    text, reason, told = serve(guard).ask(form, turn())
    policy = guard.policy
    assert text == (policy.refusal_text if action == "block" else policy.review_text)
    assert (reason, told["action"]) == ("content_filter", action)


@FORMS
def test_a_turn_that_raises_is_told_in_the_same_way(form: str, serve: Any) -> None:
    guard = guard_of(judge=0.9, actions={"unsafe": "block"}, on_block="raise")
    text, reason, told = serve(guard).ask(form, turn())
    assert (text, reason) == (guard.policy.refusal_text, "content_filter")
    assert told["action"] == "block"


@FORMS
def test_a_failed_check_never_passes(form: str, serve: Any) -> None:
    client = serve(guard_of(judge=JudgeError("down")))
    text, reason, told = client.ask(form, turn())
    assert "Run" not in text
    assert (reason, told["action"]) == ("content_filter", "review")


@FORMS
@pytest.mark.parametrize(
    "block",
    [
        picture(data=b"no picture"),
        {"type": "image_url", "image_url": {"url": "https://a.example/x.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "hologram", "data": "AAAA"},
    ],
)
def test_what_cannot_be_judged_is_stopped(form: str, block: dict[str, Any], serve: Any) -> None:
    text, reason, told = serve(guard_of()).ask(form, turn(QUERY, block))
    assert "Run" not in text
    assert (reason, told["action"]) == ("content_filter", "block")


@FORMS
def test_an_answer_that_fails_the_rail_is_not_shown(form: str, serve: Any) -> None:
    judge = ScriptedJudge(lambda request: 0.9 if request.stage == "output" else 0.1)
    client = serve(guard_of("Here is how.", judge=judge, stages={"output": {"when": "always"}}))
    text, reason, told = client.ask(form, turn())
    assert "Here" not in text
    assert reason == "content_filter"
    assert [each["stage"] for each in told["verdicts"]] == ["input", "output"]


@FORMS
def test_a_text_only_turn_passes_unjudged(form: str, serve: Any) -> None:
    text, _, told = serve(guard_of()).ask(form, [{"role": "user", "content": "hello"}])
    assert text == "Run along."
    assert told == {"action": "pass", "label": None, "p_unsafe": None, "verdicts": []}


def test_the_verdict_is_in_a_header_before_the_first_byte(serve: Any) -> None:
    client = serve(guard_of(judge=0.9))
    with httpx.stream("POST", f"{client.url}/v1/chat/completions", json=body(stream=True)) as given:
        header = json.loads(given.headers["x-safecode-verdict"])
        assert (header["label"], header["action"]) == ("unsafe", "guide")
        lines = [line for line in given.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    last = json.loads(lines[-2].removeprefix("data: "))
    assert last["safecode"]["verdicts"][0]["id"] == header["id"]
    assert client.post(json=body()).headers["x-safecode-verdict"]


def test_usage_and_limits_are_honoured(serve: Any) -> None:
    client = serve(guard_of("one two three four five six seven eight"))
    whole = client.api.chat.completions.create(**body(max_tokens=3))
    assert whole.usage.completion_tokens == 3
    assert whole.choices[0].finish_reason == "length"
    given = body(stream=True, stream_options={"include_usage": True}, max_completion_tokens=3)
    *_, last = client.api.chat.completions.create(**given)
    assert (last.choices, last.usage.completion_tokens) == ([], 3)


def test_tool_calls_are_given_whole_and_streamed(serve: Any) -> None:
    call = '<tool_call>{"name": "walk", "arguments": {"to": "edge"}}</tool_call>'
    client = serve(guard_of(call))
    function = {"name": "walk", "parameters": {"type": "object", "properties": {}}}
    given = body(tools=[{"type": "function", "function": function}])
    choice = client.api.chat.completions.create(**given).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"to": "edge"}
    chunks = list(client.api.chat.completions.create(stream=True, **given))
    (part,) = [c.choices[0].delta.tool_calls[0] for c in chunks if c.choices[0].delta.tool_calls]
    assert part.function.name == "walk"
    assert json.loads(part.function.arguments) == {"to": "edge"}
    assert part.id.startswith("call_")
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


# -- policies that requests narrow -----------------------------------------------------------------


@FORMS
def test_a_request_may_narrow_the_policy_and_never_loosen_it(form: str, serve: Any) -> None:
    client = serve(guard_of(judge=0.9))
    strict = {"safecode": {"policy": {"actions": {"unsafe": "block"}}}}
    assert client.ask(form, turn(), extra_body=strict)[1] == "content_filter"
    assert client.ask(form, turn())[1] == "stop"
    loose = {"safecode": {"policy": {"actions": {"unsafe": "pass"}}}}
    with pytest.raises(openai.BadRequestError, match=r"actions\.unsafe"):
        client.ask(form, turn(), extra_body=loose)


# -- checks ----------------------------------------------------------------------------------------


def test_checks_judge_every_stage_and_answer_nothing(serve: Any) -> None:
    judge = ScriptedJudge(0.9)
    client = serve(guard_of(judge=judge))
    call = {"name": "walk", "args": {"to": "edge"}, "id": "1"}
    wire = {"id": "1", "function": {"name": "walk", "arguments": '{"to": "edge"}'}}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("input", {}),
        ("tool_call", {"tool_call": call}),
        ("tool_call", {"tool_call": wire}),
        ("output", {"stage": "output", "answer": "Walk to the edge."}),
    ]
    for stage, more in asked:
        given = client.post("/v1/checks", json={"messages": turn(), **more})
        verdict = Verdict.model_validate(given.json()["verdict"])
        assert (verdict.stage, verdict.label) == (stage, "unsafe")
        assert json.loads(given.headers["x-safecode-verdict"])["id"] == verdict.id
    assert len({request.key("", "") for request in judge.requests}) == 3  # both forms: one call


@pytest.mark.parametrize(
    "more",
    [
        {"stage": "nowhere"},
        {"tool_call": {"args": {}}},
        {"tool_call": {"id": "1", "function": {"name": "walk", "arguments": "{"}}},
        {"unknown": 1},
        {"messages": []},
        {"model": "another"},
    ],
)
def test_a_check_of_nothing_is_refused(more: dict[str, Any], serve: Any) -> None:
    given = serve(guard_of()).post("/v1/checks", json={"messages": turn(), **more})
    assert given.status_code in (400, 404)
    assert given.json()["error"]["message"]


# -- LiteLLM's guardrail ---------------------------------------------------------------------------

GUARDRAIL = "/beta/litellm_basic_guardrail_api"


@pytest.mark.parametrize(("p", "action"), [(0.1, "NONE"), (0.9, "BLOCKED")])
@pytest.mark.parametrize(
    "asked",
    [
        {"input_type": "request", "texts": [QUERY], "images": [base64.b64encode(png()).decode()]},
        {"input_type": "request", "texts": [QUERY], "images": [picture()["image_url"]["url"]]},
        {"input_type": "request", "structured_messages": turn(), "texts": [QUERY]},
        {"input_type": "response", "structured_messages": turn(), "texts": ["Walk to the edge."]},
        {
            "input_type": "response",
            "structured_messages": turn(),
            "tool_calls": [{"id": "1", "function": {"name": "walk", "arguments": "{}"}}],
        },
        {"input_type": "response", "texts": [], "images": [base64.b64encode(png()).decode()]},
    ],
)
def test_litellm_is_told_what_to_do(asked: Any, p: float, action: str, serve: Any) -> None:
    given = serve(guard_of(judge=p)).post(GUARDRAIL, json=asked)
    assert given.json()["action"] == action
    assert ("blocked_reason" in given.json()) is (action == "BLOCKED")


def test_pictures_beside_the_messages_are_judged_too(serve: Any) -> None:
    judge = ScriptedJudge(0.1)
    shown = [picture("blue")["image_url"]["url"], picture("red")["image_url"]["url"]]
    asked = {"input_type": "request", "structured_messages": turn(), "images": shown}
    assert serve(guard_of(judge=judge)).post(GUARDRAIL, json=asked).json() == {"action": "NONE"}
    assert len({image.sha256 for request in judge.requests for image in request.scene.images}) == 2


@pytest.mark.parametrize(
    "beside",
    [
        {"role": "user", "content": picture()["image_url"]["url"]},
        {"role": "user", "content": QUERY, "name": picture()["image_url"]["url"]},
        {"role": "remove", "id": "1", "content": [picture()]},
    ],
)
def test_a_picture_is_judged_though_its_words_stand_in_a_message(beside: Any, serve: Any) -> None:
    messages = [beside, {"role": "user", "content": QUERY}]
    shown = [picture()["image_url"]["url"]]
    asked = {"input_type": "request", "structured_messages": messages, "images": shown}
    assert serve(guard_of(judge=0.9)).post(GUARDRAIL, json=asked).json()["action"] == "BLOCKED"


@pytest.mark.parametrize(
    "image", ["%%%", "https://a.example/x.png", base64.b64encode(b"x").decode()]
)
def test_litellm_is_told_to_block_what_cannot_be_judged(image: str, serve: Any) -> None:
    asked = {"input_type": "request", "texts": [QUERY], "images": [image]}
    assert serve(guard_of()).post(GUARDRAIL, json=asked).json()["action"] == "BLOCKED"


# -- who comes in, with how much -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/checks", GUARDRAIL])
@pytest.mark.parametrize(
    "headers", [{}, {"authorization": f"Bearer {KEY}x"}, {"authorization": f"Basic {KEY}"}]
)
def test_without_a_key_nothing_is_even_read(path: str, headers: Any, serve: Any) -> None:
    judge = ScriptedJudge(0.1)
    client = serve(guard_of(judge=judge), keys={"ann": SecretStr(KEY)})
    assert client.post(path, content=b"{", headers=headers).status_code == 401
    assert httpx.get(f"{client.url}/metrics", headers=headers).status_code == 401
    assert httpx.get(f"{client.url}/health").status_code == 200
    assert not judge.requests


def test_only_health_is_open_to_all(serve: Any) -> None:
    client = serve(guard_of(), keys={"ann": SecretStr(KEY)})
    assert httpx.get(f"{client.url}/openapi.json").status_code == 401
    given = httpx.get(f"{client.url}/openapi.json", headers={"x-api-key": KEY})
    assert "/v1/chat/completions" in given.json()["paths"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/v1/chat/completions/", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_told_in_the_form_of_the_api(
    method: str, path: str, status: int, code: str, serve: Any
) -> None:
    given = httpx.request(method, serve(guard_of()).url + path)
    assert (given.status_code, given.json()["error"]["code"]) == (status, code)
    assert ("allow" in given.headers) is (status == 405)


def test_keys_open_as_bearer_token_and_as_header(serve: Any) -> None:
    client = serve(guard_of(), keys={"ann": SecretStr(KEY)})
    assert client.ask("invoke", turn())[0] == "Run along."
    assert client.post(json=body(), headers={"x-api-key": KEY}).status_code == 200


@pytest.mark.parametrize("chunked", [True, False])
def test_a_request_that_is_too_large_is_refused(chunked: bool, serve: Any) -> None:
    client = serve(guard_of(), max_request_bytes=10_000)
    whole = json.dumps(body("x" * 20_000)).encode()
    pieces = (whole[at : at + 1000] for at in range(0, len(whole), 1000))
    given = client.post(content=pieces if chunked else whole)
    assert given.status_code == 413
    assert given.json()["error"]["code"] == "request_too_large"
    assert client.post(json=body()).status_code == 200


def test_a_key_has_so_many_places_and_gets_them_back(serve: Any) -> None:
    judge = ScriptedJudge(Delay(0.5, 0.1))
    keys = {"ann": SecretStr(KEY), "bob": SecretStr("b" * 20)}
    client = serve(guard_of(judge=judge), keys=keys, per_key=1)
    ann, bob = {"x-api-key": KEY}, {"x-api-key": "b" * 20}
    with ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, json=body("one", stream=True), headers=ann)
        wait_for(lambda: judge.requests)
        second = client.post(json=body("two"), headers=ann)
        other = pool.submit(client.post, json=body("three"), headers=bob)
        assert (second.status_code, second.headers["retry-after"]) == (429, "1")
        assert (first.result().status_code, other.result().status_code) == (200, 200)
    for _ in range(3):
        assert client.post(json=body("four", stream=True), headers=ann).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_gives_its_place_back(stream: bool, serve: Any) -> None:
    judge = ScriptedJudge(Delay(0.4, 0.1))
    client = serve(guard_of(judge=judge), per_key=1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{client.url}/v1/chat/completions", json=body(stream=stream), timeout=0.1)
    for _ in range(100):
        given = client.post(json=body("again"))
        if given.status_code == 200:
            break
        assert given.status_code == 429
    assert given.json()["choices"][0]["message"]["content"] == "Run along."


def test_a_request_that_is_cancelled_gives_its_place_back() -> None:
    judge = ScriptedJudge(Delay(0.2, 0.1))
    app = make_app(guard_of(judge=judge), "scripted", ServerConfig(per_key=1))

    async def cancelled_and_asked_again() -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as http:
            first = asyncio.create_task(http.post("/v1/chat/completions", json=body()))
            while not judge.requests:
                await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return (await http.post("/v1/chat/completions", json=body())).status_code

    assert asyncio.run(cancelled_and_asked_again()) == 200


def test_a_client_that_leaves_amid_its_request_is_no_failure_of_the_server(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    address = httpx.URL(serve(guard_of()).url)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
    with caplog.at_level(logging.INFO, "safecode_guard.server"):
        with socket.create_connection((address.host, address.port)) as client:
            client.sendall(head)
            time.sleep(0.1)
        wait_for(lambda: '"status": 499' in caplog.text)
    assert '"status": 499' in caplog.text


def test_a_client_that_sends_no_more_is_not_waited_for(serve: Any) -> None:
    address = httpx.URL(serve(guard_of(), patience_s=0.2).url)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
    with socket.create_connection((address.host, address.port), timeout=10) as client:
        client.sendall(head)
        assert b" 408 " in client.recv(100)


def test_a_client_that_takes_nothing_gives_its_place_back() -> None:
    left = asyncio.Event()
    app = make_app(guard_of(), "scripted", ServerConfig(per_key=1, patience_s=0.1))
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    scope |= {"query_string": b"", "asgi": {"spec_version": "2.3", "version": "3.0"}}
    sent = [{"type": "http.request", "body": json.dumps(body(stream=True)).encode()}]
    parts: list[Any] = []

    async def receive() -> Any:
        if not sent:
            await left.wait()
        return sent.pop()

    async def send(message: Any) -> None:
        parts.append(message)
        if message["type"] == "http.response.body":
            await left.wait()

    async def stalled_and_asked_again() -> int:
        async with asyncio.timeout(10):
            await app(scope, receive, send)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as http:
            return (await http.post("/v1/chat/completions", json=body())).status_code

    assert asyncio.run(stalled_and_asked_again()) == 200
    assert [part["type"] for part in parts] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("form", [["image_url"], {"a": 1}, 3])
def test_a_block_whose_type_is_no_word_is_refused(form: Any, serve: Any) -> None:
    given = serve(guard_of()).post(json=body() | {"messages": turn(QUERY, {"type": form})})
    assert (given.status_code, given.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"model": 3}', b"\xff\xfe", b'{"messages": [{"role": "user"}]' * 100],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/checks", GUARDRAIL])
def test_nonsense_gets_an_error_and_the_server_lives(content: bytes, path: str, serve: Any) -> None:
    client = serve(guard_of())
    given = client.post(path, content=content)
    assert given.status_code == 400
    assert given.json()["error"]["type"] == "invalid_request_error"
    assert client.post(json=body()).status_code == 200


def test_errors_of_the_server_tell_nothing_of_it_or_of_the_conversation(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(scene: Any) -> str:
        raise RuntimeError("the secret of the house")

    client = serve(guard_of(broken))
    with caplog.at_level(logging.INFO, "safecode_guard.server"):
        given = client.post(json=body("a very private question"))
        streamed = client.post(json=body("a very private question", stream=True))
    assert (given.status_code, streamed.status_code) == (500, 500)
    told = given.text + streamed.text + caplog.text
    assert "secret" not in told
    assert "private" not in told
    assert '"error": "RuntimeError"' in caplog.text


@pytest.mark.parametrize("stream", [True, False])
def test_a_server_behind_that_is_gone_is_told(stream: bool, serve: Any) -> None:
    behind = ChatOpenAI(base_url="http://127.0.0.1:9/v1", model="x", api_key="none", max_retries=0)
    judge = ScriptedJudge(0.1)
    guard = SafeCoDeGuard(model=behind, judge=judge, policy=Policy(mode="judge_only"))
    given = serve(guard).post(json=body(stream=stream))
    assert (given.status_code, given.json()["error"]["code"]) == (502, "upstream_failed")
    assert "127.0.0.1" not in given.text


def test_callers_do_not_find_each_others_prompts(serve: Any) -> None:
    keys = {"ann": SecretStr(KEY), "bob": SecretStr("b" * 20)}
    guard = SafeCoDeGuard(model=ChatTransformers.tiny(temperature=0))
    client, kept = serve(guard, keys=keys), guard.model.engine.kept  # type: ignore[attr-defined]
    client.post(json=body(max_tokens=2), headers={"x-api-key": KEY})
    before = kept.statistics().hits
    client.post(json=body(max_tokens=2), headers={"x-api-key": "b" * 20})
    assert kept.statistics().hits == before
    client.post(json=body(max_tokens=2), headers={"x-api-key": KEY})
    assert kept.statistics().hits > before


def test_the_log_has_one_line_a_request_and_no_content(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(guard_of(judge=0.9), keys={"ann": SecretStr(KEY)})
    with caplog.at_level(logging.INFO, "safecode_guard.server"):
        client.post(json=body("a very private question", stream=True), headers={"x-api-key": KEY})
        wait_for(lambda: "safecode_guard.server" in [each.name for each in caplog.records])
    (record,) = [each for each in caplog.records if each.name == "safecode_guard.server"]
    line = json.loads(record.message)
    assert (line["path"], line["key"], line["status"]) == ("/v1/chat/completions", "ann", 200)
    assert (line["verdict"]["label"], line["images"]) == ("unsafe", 1)
    assert "private" not in record.message
    assert KEY not in record.message


def test_metrics_count_requests_and_verdicts(serve: Any) -> None:
    client = serve(guard_of(judge=0.9))
    client.post(json=body())
    client.post(json=body(stream=True))
    client.post("/v1/checks", json={"messages": turn()})
    done = 'safecode_requests_total{path="/v1/chat/completions",status="200"} 2.0'
    wait_for(lambda: done in httpx.get(f"{client.url}/metrics").text)
    text = httpx.get(f"{client.url}/metrics").text
    assert 'safecode_verdicts_total{action="guide",label="unsafe",stage="input"} 3.0' in text
    assert done in text
    assert "safecode_requests_under_way 0.0" in text


def test_only_the_model_that_is_there_is_served(serve: Any) -> None:
    client = serve(guard_of())
    assert [model.id for model in client.api.models.list()] == ["scripted"]
    given = client.post(json={**body(), "model": "another"})
    assert (given.status_code, given.json()["error"]["code"]) == (404, "model_not_found")


def test_nothing_is_shared_across_origins(serve: Any) -> None:
    given = httpx.options(
        f"{serve(guard_of()).url}/v1/chat/completions",
        headers={"origin": "https://a.example", "access-control-request-method": "POST"},
    )
    assert not [name for name in given.headers if name.startswith("access-control")]


# -- many at once ----------------------------------------------------------------------------------


def test_64_clients_get_their_own_answers_and_verdicts(serve: Any) -> None:
    def by_number(request: Any) -> float:
        return 0.9 if int(request.scene.request.split()[-1]) % 2 else 0.1

    judge = ScriptedJudge(by_number)
    client = serve(guard_of(lambda scene: f"Answer to {scene.question}", judge=judge), per_key=100)

    async def one(http: httpx.AsyncClient, number: int) -> tuple[str, str]:
        asked = body(f"question {number}", stream=bool(number % 3))
        given = await http.post(f"{client.url}/v1/chat/completions", json=asked)
        assert given.status_code == 200
        return given.text, json.loads(given.headers["x-safecode-verdict"])["label"]

    async def all_of() -> list[tuple[str, str]]:
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=64)) as http:
            return await asyncio.gather(*(one(http, number) for number in range(64)))

    for number, (text, label) in enumerate(asyncio.run(all_of())):
        assert label == ("unsafe" if number % 2 else "safe")
        said = "".join(
            part["choices"][0].get("delta", part["choices"][0].get("message"))["content"] or ""
            for part in _parts(text)
            if "content" in part["choices"][0].get("delta", part["choices"][0].get("message"))
        )
        if label == "safe":
            assert said == f"Answer to question {number}"


def _parts(text: str) -> list[dict[str, Any]]:
    if not text.startswith("data: "):
        return [json.loads(text)]
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]
