"""A model behind a small OpenAI-compatible app, to try remote judges against without any network.

It answers ``POST /v1/chat/completions`` (text and inline pictures, ``logprobs``, a JSON schema as
``response_format``) and ``GET /v1/models``, greedily and one request at a time.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from pydantic import BaseModel, Field, ValidationError

from safecode_guard.engines.transformers.loop import Row, decode
from safecode_guard.errors import GuardError
from safecode_guard.models.protocol import Sampling
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.turn import Turn

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    from safecode_guard.engines.transformers.engine import CachedEngine
    from safecode_guard.engines.transformers.protocol import Branch, CachedModel
    from safecode_guard.output.grammar import GrammarConstraint

_PATH: Final = "/v1/chat/completions"


class JsonSchema(BaseModel):
    """A schema that the answer has to follow."""

    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """What an answer has to look like."""

    type: Literal["text", "json_schema"]
    json_schema: JsonSchema | None = None


class CompletionRequest(BaseModel):
    """The part of a chat completion's request that is looked at."""

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_tokens: int = Field(default=64, gt=0, le=512)
    temperature: float = Field(default=0, ge=0)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    response_format: ResponseFormat | None = None


@dataclass
class ModelEndpoint:
    """A model's answers in the form of the API.

    Example:
        >>> endpoint = ModelEndpoint(TransformersModel.load("models/judge"))   # doctest: +SKIP
        >>> with serving(endpoint.app()) as url:                               # doctest: +SKIP
        ...     judge = HttpJudge(HttpJudgeConfig(url=f"{url}/v1", model="judge"))
    """

    model: CachedEngine
    name: str = "judge"
    api_key: str | None = None
    """What callers have to send; None: nothing."""
    forms: frozenset[str] = frozenset({"logprobs", "json_schema"})
    """What is on offer beside plain text; other servers have less."""
    served: int = 0
    """Completions so far."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def app(self) -> Starlette:
        """Return the app, for any ASGI server."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        routes = [
            Route(_PATH, self._complete, methods=["POST"]),
            Route("/v1/models", self._models),
        ]
        return Starlette(routes=routes)

    def answer(self, asked: CompletionRequest) -> dict[str, Any]:
        """Return the completion of a request.

        Raises:
            GuardError: If the conversation cannot be read, or the model cannot answer it.
        """
        with self._lock:
            self.served += 1
            row, tops = self._decoded(_turn(asked), asked)
        shown = row.tokens[:-1] if row.tokens[-1] in row.eos_ids else row.tokens
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": self._cached.vocabulary.decode(shown)},
            "finish_reason": row.finish,
        }
        if asked.logprobs and "logprobs" in self.forms:
            choice["logprobs"] = {"content": tops}
        return {
            "id": f"chatcmpl-{secrets.token_hex(8)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.name,
            "choices": [choice],
        }

    @property
    def _cached(self) -> CachedModel:
        return cast("CachedModel", self.model)

    def _decoded(self, turn: Turn, asked: CompletionRequest) -> tuple[Row, list[dict[str, Any]]]:
        row = Row(
            asked.max_tokens, self._cached.vocabulary.eos_ids, constraint=self._constraint(asked)
        )
        branch = self._cached.prefill(self._cached.encode([turn]), Sampling(do_sample=False))
        tops = []
        for _ in decode(branch, [row]):
            if row.error is not None:
                raise row.error
            tops.append(self._scores(branch, row.tokens[-1], asked.top_logprobs))
        return row, tops

    def _scores(self, branch: Branch, token: int, most: int) -> dict[str, Any]:
        """Return a chosen token with the likeliest in its place, over the whole vocabulary."""
        log_p = branch.logits[0].float().log_softmax(-1)
        best = log_p.topk(min(max(most, 1), len(log_p)))
        columns = {int(branch.candidates[i]): float(log_p[i]) for i in best.indices.tolist()}
        top = [self._named(id, value) for id, value in columns.items()][:most]
        return {**self._named(token, columns.get(token, -9999.0)), "top_logprobs": top}

    def _named(self, token: int, log_p: float) -> dict[str, Any]:
        text = self._cached.vocabulary.decode([token])
        return {"token": text, "logprob": max(log_p, -9999.0), "bytes": list(text.encode())}

    def _constraint(self, asked: CompletionRequest) -> GrammarConstraint | None:
        wanted = asked.response_format.json_schema if asked.response_format else None
        if wanted is None or "json_schema" not in self.forms:
            return None
        from safecode_guard.output.grammar import Grammar

        grammar = Grammar.from_json_schema(wanted.schema_, self._cached.vocabulary)
        return grammar.constraint(asked.max_tokens)

    async def _complete(self, request: Request) -> JSONResponse:
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse

        if not self._admits(request):
            return _error(401, "Incorrect API key provided.")
        try:
            asked = CompletionRequest.model_validate_json(await request.body())
            if asked.model != self.name:
                return _error(404, f"The model {asked.model!r} does not exist.")
            return JSONResponse(await run_in_threadpool(self.answer, asked))
        except ValidationError as error:
            return _error(422, str(error))
        except GuardError as error:
            return _error(400, str(error))

    async def _models(self, request: Request) -> JSONResponse:
        from starlette.responses import JSONResponse

        if not self._admits(request):
            return _error(401, "Incorrect API key provided.")
        return JSONResponse({"object": "list", "data": [{"id": self.name, "object": "model"}]})

    def _admits(self, request: Request) -> bool:
        if self.api_key is None:
            return True
        given = request.headers.get("authorization", "").encode()
        return secrets.compare_digest(given, f"Bearer {self.api_key}".encode())


def _turn(asked: CompletionRequest) -> Turn:
    from langchain_core.messages import convert_to_messages

    return read_turn(convert_to_messages(asked.messages), strict=True)


def _error(status: int, message: str) -> JSONResponse:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": {"message": message, "code": status}}, status)
