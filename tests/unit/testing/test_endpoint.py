from __future__ import annotations

from typing import Any

import httpx
import pytest

from safecode_guard.testing import ModelEndpoint, ScriptedVLM, serving
from tests.messages import image_block

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["safe", "unsafe"]}},
    "required": ["label"],
    "additionalProperties": False,
}


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "judge", "messages": [{"role": "user", "content": "Hello"}], **fields}


async def post(endpoint: ModelEndpoint, body: Any, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(endpoint.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://judge.test") as client:
        return await client.post("/v1/chat/completions", json=body, headers=headers)


async def test_it_writes_greedily_and_says_how_it_ended() -> None:
    endpoint = ModelEndpoint(ScriptedVLM("Good day."))
    (choice,) = (await post(endpoint, asked())).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Good day.", "stop")
    (choice,) = (await post(endpoint, asked(max_tokens=4))).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Good", "length")
    assert endpoint.served == 2


async def test_it_lists_the_likeliest_tokens_in_order() -> None:
    endpoint = ModelEndpoint(ScriptedVLM({"Yes": 0.0, "No": -1.0}))
    body = asked(max_tokens=1, logprobs=True, top_logprobs=5)
    (position,) = (await post(endpoint, body)).json()["choices"][0]["logprobs"]["content"]
    assert [one["token"] for one in position["top_logprobs"][:2]] == ["Y", "N"]
    scores = [one["logprob"] for one in position["top_logprobs"]]
    assert scores == sorted(scores, reverse=True)
    assert position["logprob"] == scores[0]


async def test_it_holds_its_answer_to_a_schema() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "v", "schema": SCHEMA}}
    reply = await post(ModelEndpoint(ScriptedVLM("Words.")), asked(response_format=schema))
    assert reply.json()["choices"][0]["message"]["content"] in (
        '{"label": "safe"}',
        '{"label": "unsafe"}',
    )


async def test_pictures_are_read_inline() -> None:
    seen: list[Any] = []

    def reply(scene: Any) -> str:
        seen.append(scene.images)
        return "Red."

    url = f"data:image/png;base64,{image_block('red')['base64']}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}]
    await post(
        ModelEndpoint(ScriptedVLM(reply)), asked(messages=[{"role": "user", "content": content}])
    )
    (picture,) = seen[0]
    assert picture.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "judge"}, 422),
        (asked(model="another"), 404),
        (asked(messages=[{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "http://a.test/x.png"}}]}]), 400),
    ],
)  # fmt: skip
async def test_what_it_cannot_answer_is_an_error_of_the_api(body: Any, status: int) -> None:
    reply = await post(ModelEndpoint(ScriptedVLM()), body)
    assert reply.status_code == status
    assert reply.json()["error"]["message"]


async def test_a_key_is_asked_for() -> None:
    locked = ModelEndpoint(ScriptedVLM(), api_key="k")
    assert (await post(locked, asked())).status_code == 401
    assert (await post(locked, asked(), authorization="Bearer k")).status_code == 200


def test_it_is_served_on_the_loopback_and_stopped() -> None:
    with serving(ModelEndpoint(ScriptedVLM(), name="mine").app()) as url:
        assert url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{url}/v1/models").json()["data"][0]["id"] == "mine"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/v1/models")
