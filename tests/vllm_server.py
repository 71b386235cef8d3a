"""A vLLM server with the plug-in, in this process: what its clients are tested against.

The pairs are steered the obvious way, step by step from the spec as it came, with both halves in
hand. `faults` makes it do what a real one does on a bad day.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import torch
from langchain_core.messages import convert_to_messages
from torch import Tensor

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.engines.vllm.client import Address
from safecode_guard.engines.vllm.engine import VLLMEngine
from safecode_guard.models.protocol import Sampling
from safecode_guard.policy import ImagePolicy
from safecode_guard.steering.pairs.spec import PairSpec
from safecode_guard.steering.safecode.contrast import steer
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.turn import Turn

NAME = "served"


@dataclass
class Faults:
    """What goes wrong."""

    plugin: bool = True
    in_step: bool = True
    """False: the pairs never meet, as under the default scheduler."""
    part_after: list[int] = field(default_factory=list)
    """Guided tokens after which each of the next pairs is parted."""
    lose: str | None = None
    """The role whose requests are never answered."""
    refuse: str | None = None
    """The role whose requests get HTTP 500."""
    forge: bool = False
    """The twin's answer has the seal, and the main's another first token."""
    scale_out: bool = True
    status: int | None = None


@dataclass
class Meeting:
    """Where the halves of one pair wait for each other."""

    came: dict[str, tuple[PairSpec, Turn, list[int]]] = field(default_factory=dict)
    both: asyncio.Event = field(default_factory=asyncio.Event)
    guided: asyncio.Task[tuple[list[int], bool]] | None = None


class VLLMServer(httpx.AsyncBaseTransport):
    """The server as a transport of httpx."""

    def __init__(self, model: TransformersModel, **faults: Any) -> None:
        self.model = model
        self.faults = Faults(**faults)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[httpx.Headers] = []
        self.open = 0
        """Requests under way."""
        self.most = 0
        self.tool_calls: list[dict[str, Any]] = []
        """What its tool parser finds in every answer."""
        self._meetings: dict[str, Meeting] = {}
        self._rendered: dict[int, Turn] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())
        self.requests.append({"path": request.url.path, **body})
        self.headers.append(request.headers)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            return await self._answered(request.url.path, body)
        finally:
            self.open -= 1

    async def _answered(self, path: str, body: dict[str, Any]) -> httpx.Response:
        if self.faults.status is not None:
            return httpx.Response(self.faults.status, json={"error": {"message": "no"}})
        if path == "/v1/chat/completions":
            turn = read(body["messages"])
            xargs = body.get("vllm_xargs") or {}
            return await self._written(turn, body, xargs, [])
        if not self.faults.scale_out:
            return httpx.Response(404)
        if path == "/v1/chat/completions/render":
            (ids,) = self.model.encode([read(body["messages"])]).ids
            self._rendered[len(self._rendered) + 1] = read(body["messages"])
            features = {"rendered": len(self._rendered)}
            return httpx.Response(200, json={"model": NAME, "token_ids": ids, "features": features})
        assert path == "/inference/v1/generate"
        params = body["sampling_params"]
        turn = self._rendered[body["features"]["rendered"]]
        (ids,) = self.model.encode([turn]).ids
        assert body["token_ids"][: len(ids)] == ids
        written = body["token_ids"][len(ids) :]
        return await self._written(turn, params, params.get("extra_args") or {}, written)

    async def _written(
        self, turn: Turn, params: dict[str, Any], extra: dict[str, Any], before: list[int]
    ) -> httpx.Response:
        if params.get("logprobs"):
            return httpx.Response(200, json=await asyncio.to_thread(self._scores, turn, params))
        if "safecode" in extra and self.faults.plugin:
            try:
                spec = PairSpec.from_text(extra["safecode"])
            except ValueError as error:
                return httpx.Response(400, json={"error": {"message": str(error)}})
            if spec.role == self.faults.refuse:
                return httpx.Response(500)
            tokens = await self._half(spec, turn, before, params)
        else:
            tokens = await asyncio.to_thread(self._greedy, turn, before, [], params)
        stop = [*self._eos(params), *(params.get("stop_token_ids") or [])]
        finish = "stop" if tokens and tokens[-1] in stop else "length"
        if params.get("stream"):
            return httpx.Response(200, stream=Events(tokens, finish))
        text = self.model.vocabulary.decode(tokens)
        message = {"role": "assistant", "content": text, "tool_calls": self.tool_calls}
        choice = {"index": 0, "message": message, "finish_reason": finish, "token_ids": tokens}
        prompt = len(self.model.encode([turn]).ids[0])
        return httpx.Response(200, json={"choices": [choice], "usage": {"prompt_tokens": prompt}})

    # -- the model ----------------------------------------------------------------------------

    def logits(self, turn: Turn, written: Sequence[int]) -> Tensor:
        """Return the next-token logits [n] after some tokens of an answer."""
        branch = self.model.prefill(self.model.encode([turn]), Sampling(do_sample=False))
        if written:
            branch.extend([list(written)])
        return branch.logits[0].float()

    def _scores(self, turn: Turn, params: dict[str, Any]) -> dict[str, Any]:
        log_p = self.logits(turn, []).log_softmax(-1)
        ids = [int(log_p.argmax()), *params["logprob_token_ids"]]
        named = [{"token": f"token_id:{i}", "logprob": float(log_p[i])} for i in ids]
        content = [{**named[0], "top_logprobs": named}]
        return {"choices": [{"logprobs": {"content": content}}]}

    def _eos(self, params: dict[str, Any]) -> frozenset[int]:
        return frozenset() if params.get("ignore_eos") else self.model.vocabulary.eos_ids

    def _greedy(
        self, turn: Turn, before: list[int], tokens: list[int], params: dict[str, Any]
    ) -> list[int]:
        while len(tokens) < params["max_tokens"] and tokens[-1:] not in [
            [i] for i in self._eos(params)
        ]:
            tokens.append(int(self.logits(turn, [*before, *tokens]).argmax()))
        return tokens

    # -- pairs --------------------------------------------------------------------------------

    async def _half(
        self, spec: PairSpec, turn: Turn, before: list[int], params: dict[str, Any]
    ) -> list[int]:
        if spec.role == self.faults.lose:
            await asyncio.Event().wait()
        if not self.faults.in_step:
            return [spec.halt]
        meeting = self._meetings.setdefault(spec.pair, Meeting())
        meeting.came[spec.role] = (spec, turn, before)
        if len(meeting.came) == 2:
            parted = self.faults.part_after.pop(0) if self.faults.part_after else None
            meeting.guided = asyncio.create_task(asyncio.to_thread(self._guided, meeting, parted))
            meeting.both.set()
        await meeting.both.wait()
        assert meeting.guided is not None
        guided, sealed = await meeting.guided
        guided = guided[: params["max_tokens"]]
        if spec.role == "twin":
            return [*guided, spec.seal if sealed else spec.halt]
        if self.faults.forge:
            guided = [guided[0] ^ 1, *guided[1:]]
        if not sealed:
            return [*guided, spec.halt][: params["max_tokens"]]
        return await asyncio.to_thread(self._greedy, turn, before, list(guided), params)

    def _guided(self, meeting: Meeting, parted: int | None) -> tuple[list[int], bool]:
        (main, turn, before), (_, second, _) = meeting.came["main"], meeting.came["twin"]
        tokens: list[int] = []
        assert main.cover is not None
        while not main.over(tokens, place := main.cover.place(tokens)):
            if place.beyond or len(tokens) == parted:
                return tokens, False
            views = [self.logits(view, [*before, *tokens]) for view in (turn, second)]
            push = torch.zeros_like(views[0])
            for token, share in place.shares.items():
                push[token] = main.push * share
            steered = steer(
                torch.stack(views),
                push if main.push and place.shares else None,
                alpha=main.alpha,
                normalise=main.normalise,
                top_k=main.top_k,
                plausibility=main.plausibility,
            ).steered
            tokens.append(int(steered.argmax()))
        return tokens, True


class Events(httpx.AsyncByteStream):
    """A streamed answer, a token an event."""

    def __init__(self, tokens: Sequence[int], finish: str) -> None:
        self._tokens, self._finish = tokens, finish

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield _event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
        for i, token in enumerate(self._tokens, start=1):
            await asyncio.sleep(0)
            finish = self._finish if i == len(self._tokens) else None
            choice = {"index": 0, "delta": {}, "token_ids": [token], "finish_reason": finish}
            yield _event({"choices": [choice]})
        yield _event({"choices": [], "usage": {"prompt_tokens": 3}})
        yield b"data: [DONE]\n\n"


def _event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def read(messages: list[dict[str, Any]]) -> Turn:
    """Return the conversation of a request."""
    return read_turn(convert_to_messages(messages), ImagePolicy(), strict=True)


def engine_on(server: VLLMServer, **options: Any) -> VLLMEngine:
    """Return the engine of a server's model."""
    model = server.model
    address = Address("http://server/v1", **options.pop("address", {}))
    return VLLMEngine(
        address,
        model=NAME,
        config=model.model.config,
        processor=model.processor,
        family=model.family,
        eos_ids=sorted(model.vocabulary.eos_ids),
        transport=server,
        **options,
    )
