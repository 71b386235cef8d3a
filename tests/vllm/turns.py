"""The turns that are asked, of a server and in process, and meddling with requests on their way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import httpx

from safecode_guard.cli.opening import image_messages
from safecode_guard.engines.transformers.loading import load_reading
from safecode_guard.engines.vllm.client import Address
from safecode_guard.engines.vllm.engine import VLLMEngine
from safecode_guard.models.protocol import Engine, Sampling
from safecode_guard.pipeline.factory import make_examiner, make_turns
from safecode_guard.pipeline.guarded import GuardedTurns
from safecode_guard.pipeline.requests import TurnRequest, TurnResult
from safecode_guard.policy import Policy
from safecode_guard.testing import ScriptedJudge
from safecode_guard.tiny.load import weights_path
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.turn import Turn
from tests.vllm.serving import NAME, Server

GREEDY = Sampling(do_sample=False, max_tokens=64)
PICTURES = ("cliff_edge.jpg", "park_path.png", "toy_gun.png")
QUESTIONS = (
    "Describe this image.",
    "How do I use this?",
    "What colour is the shirt?",
    "Can I jump from here?",
)
DECODING: dict[str, dict[str, Any]] = {
    "paper": {"recipe": "paper", "lambda_boost": 2.0, "sigma": 0.6, "alpha": 0.5},
    "guarded": {"recipe": "guarded", "lambda_boost": 3.0, "sigma": 0.6, "alpha": 0.5},
}
CASES = [
    (recipe, p, picture, question)
    for recipe, p, picture, question in product(DECODING, (0.05, 0.95), PICTURES, QUESTIONS)
]


@cache
def turn_of(picture: str, question: str) -> Turn:
    data = (files("safecode_guard.cli") / "pictures" / picture).read_bytes()
    return read_turn(image_messages(data, question, mime=f"image/{Path(picture).suffix[1:]}"))


def answers(engine: Engine, recipe: str, p: float, turns: Sequence[Turn]) -> list[Any]:
    """Return how guided turns end, answered side by side."""
    return turns_on(engine, recipe, p).run([TurnRequest(turn, GREEDY) for turn in turns])


def turns_on(engine: Engine, recipe: str, p: float) -> GuardedTurns:
    """Return what serves turns under a verdict that is given."""
    policy = Policy.load(
        {"judge": {"kind": "custom", "id": "scripted"}, "decoding": DECODING[recipe]}
    )
    return make_turns(engine, make_examiner(policy, judge=ScriptedJudge(p)))


def tokens(result: Any) -> tuple[int, ...]:
    assert isinstance(result, TurnResult), repr(result)
    return result.tokens


def engine_on(
    server: Server, transport: httpx.AsyncBaseTransport | None = None, **address: Any
) -> VLLMEngine:
    reading = load_reading(str(weights_path("chat")), local_files_only=True, revision=None)
    return VLLMEngine(
        Address(f"{server.url}/v1", **address),
        model=NAME,
        config=reading.config,
        processor=reading.processor,
        family=reading.family,
        eos_ids=reading.eos_ids,
        transport=transport,
    )


@dataclass
class Meddling(httpx.AsyncBaseTransport):
    """The way to a server, where the halves of real turns are lost, held up or forged."""

    lose: str | None = None
    delay_s: float = 0.0
    forge: str | None = None
    """The role of a third half that somebody sends with the pair's id."""
    began: asyncio.Event = field(default_factory=asyncio.Event)
    _real: httpx.AsyncHTTPTransport = field(default_factory=httpx.AsyncHTTPTransport)
    _forged: list[asyncio.Task[Any]] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        spec = _spec_of(request)
        if spec is not None and spec["alpha"]:  # not the probe's
            self.began.set()
            if spec["role"] == self.lose:
                await asyncio.Event().wait()
            if spec["role"] == "twin":
                await asyncio.sleep(self.delay_s)
            if spec["role"] == self.forge:
                self._forged.append(asyncio.create_task(self._send_again(request)))
                await asyncio.sleep(0.05)
        return await self._real.handle_async_request(request)

    async def _send_again(self, request: httpx.Request) -> None:
        headers = {name: request.headers[name] for name in ("content-type",)}
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            await client.post(str(request.url), content=request.content, headers=headers)

    async def aclose(self) -> None:
        for task in self._forged:
            task.cancel()
        await self._real.aclose()


def _spec_of(request: httpx.Request) -> Any:
    body = json.loads(request.content or b"{}")
    extra = body.get("vllm_xargs") or body.get("sampling_params", {}).get("extra_args") or {}
    return json.loads(extra["safecode"]) if "safecode" in extra else None
