"""Specs that cannot be read are HTTP 400, and the server answers the next request each time."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from safecode_guard.steering.pairs.acceptance import Sealed, accept
from safecode_guard.steering.pairs.cover import Cover
from safecode_guard.steering.pairs.spec import PairSpec
from tests.vllm.serving import NAME, Server
from tests.vllm.turns import engine_on

MANY = 240
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 2**40, 1e300, "", "x" * 70_000, [], {}, [[]], float("nan"),
    float("inf"), "main", "twin", {"nodes": "AA"}, [1, True], 0.5,
)  # fmt: skip


def spec(rng: random.Random) -> dict[str, Any]:
    made = PairSpec(
        pair=f"{rng.getrandbits(128):032x}",
        role="main",
        steps=5,
        most=8,
        alpha=0.5,
        normalise="rescale",
        top_k=50,
        plausibility=0.1,
        push=3.0,
        eos=(1,),
        halt=2,
        seal=0,
        cover=Cover(everywhere=frozenset({7, 9})),
    )
    fields: dict[str, Any] = json.loads(made.to_text())
    return fields


def malformed(rng: random.Random) -> Iterator[str]:
    """Yield texts that are no spec."""
    while True:
        fields = spec(rng)
        inner = rng.random() < 0.3
        target = fields["cover"] if inner else fields
        name = rng.choice(sorted(target))
        kind = rng.randrange(4)
        if kind == 0:
            target[name] = rng.choice(VALUES)
        elif kind == 1:
            del target[name]
        elif kind == 2:
            target[f"{name}_"] = 1
        text = json.dumps(fields)
        if kind == 3:
            text = text[: rng.randrange(len(text))]
        try:
            PairSpec.from_text(text)
        except ValueError:
            yield text


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20, trust_env=False) as made:
        yield made


def post(client: httpx.Client, **fields: Any) -> httpx.Response:
    body = {
        "model": NAME,
        "messages": [{"role": "user", "content": "Hello"}],
        "temperature": 0,
        "max_tokens": 2,
        "return_token_ids": True,
    }
    return client.post("/v1/chat/completions", json=body | fields)


def test_malformed_specs_are_refused_and_the_server_lives(client, capsys) -> None:
    rng = random.Random(4)
    alive = post(client).json()["choices"][0]["token_ids"]
    texts = malformed(rng)
    for _ in range(MANY):
        text = next(texts)
        refused = post(client, stop_token_ids=[2], vllm_xargs={"safecode": text})
        assert refused.status_code == 400, text[:300]
        assert post(client).json()["choices"][0]["token_ids"] == alive
    with capsys.disabled():
        print(f"\n{MANY} malformed specs: HTTP 400, and the next request answered, each time")


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"temperature": 0.7},
        {"repetition_penalty": 1.2},
        {"logit_bias": {"5": 1.0}},
        {"stop_token_ids": []},
        {"response_format": {"type": "json_object"}},
        {"vllm_xargs": {"safecode": 5}},
        {"vllm_xargs": {"safecode": ["x"]}},
    ],
)
def test_requests_that_cannot_be_steered_are_refused(client, more) -> None:
    text = json.dumps(spec(random.Random(5)))
    refused = post(client, **{"stop_token_ids": [2], "vllm_xargs": {"safecode": text}} | more)
    assert refused.status_code == 400
    assert post(client).status_code == 200


def test_ids_beyond_the_vocabulary_halt_and_end_nothing(server: Server, client) -> None:
    with closing(engine_on(server)) as engine:
        engine.probe()
    fields = spec(random.Random(6)) | {"eos": [5000]}
    twin = fields | {"role": "twin", "cover": None}
    main = PairSpec.from_text(json.dumps(fields))
    replies: dict[str, Any] = {}

    def send(name: str, half: dict[str, Any], **more: Any) -> None:
        text = json.dumps(half)
        replies[name] = post(client, vllm_xargs={"safecode": text}, max_tokens=20, **more)

    threads = [
        threading.Thread(target=send, args=("main", fields), kwargs={"stop_token_ids": [2]}),
        threading.Thread(
            target=send,
            args=("twin", twin),
            kwargs={"stop_token_ids": [2, 0], "ignore_eos": True},
        ),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(25)
    answers = {k: r.json()["choices"][0]["token_ids"] for k, r in replies.items()}
    assert not isinstance(accept(main, answers["main"], answers["twin"]), Sealed)
    assert post(client).status_code == 200
