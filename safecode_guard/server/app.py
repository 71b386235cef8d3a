"""The server: OpenAI's chat completions, checks without an answer, health and metrics.

A stream's verdict is known before its first byte, so it stands in a header; where a turn cannot be
judged, no byte is sent. A client that goes away ends its turn.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, TypeVar

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from safecode_guard.errors import TurnBlocked
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.server.answers import DONE, Completion, PartsOf, event, verdict_header
from safecode_guard.server.config import ServerConfig
from safecode_guard.server.doors import BodyLimit, Keys, Places, Refused, error_body
from safecode_guard.server.failures import refused
from safecode_guard.server.guardrail import call_of, guardrail
from safecode_guard.server.metrics import CONTENT_TYPE, Metrics
from safecode_guard.server.narrowing import Narrowed
from safecode_guard.server.wire import ChatRequest, CheckRequest, Conversation, GuardrailRequest
from safecode_guard.verdict import Verdict, gravest

T = TypeVar("T")
Form = TypeVar("Form", bound=BaseModel)
Answer = Callable[[Request, "Entry"], Awaitable[Response]]

log: Final = logging.getLogger("safecode_guard.server")
"""One line of JSON a request, without anything of its content."""

_SMALL: Final = 1 << 16
"""Bytes of a request that are read on the event loop itself."""


def make_app(guard: SafeCoDeGuard, name: str, config: ServerConfig | None = None) -> FastAPI:
    """Return the app that serves a guarded model.

    Args:
        guard: The guarded model.
        name: Under which clients ask for it.
        config: Who is let in, with how much.
    """
    served = Served(guard, name, config or ServerConfig())
    app = FastAPI(title="safecode-guard", openapi_url=None, redirect_slashes=False)
    app.add_middleware(BodyLimit, most=served.config.max_request_bytes)
    posts: dict[str, tuple[Answer, type[BaseModel]]] = {
        "/v1/chat/completions": (served.complete, ChatRequest),
        "/v1/checks": (served.check, CheckRequest),
        "/beta/litellm_basic_guardrail_api": (served.guardrail, GuardrailRequest),
    }
    for path, (answer, form) in posts.items():
        extra = {"requestBody": {"content": {"application/json": {"schema": _schema(form)}}}}
        app.add_api_route(
            path, served.admitting(path, answer), methods=["POST"], openapi_extra=extra
        )
    app.add_api_route("/v1/models", served.admitting("/v1/models", served.models))
    app.add_api_route("/metrics", served.admitting("/metrics", served.told_metrics))
    app.add_api_route("/health", served.health)

    async def described(request: Request, entry: Entry) -> Response:
        return JSONResponse(app.openapi())

    path = "/openapi.json"
    app.add_api_route(path, served.admitting(path, described), include_in_schema=False)
    app.add_exception_handler(HTTPException, _no_route)
    return app


@dataclass
class Entry:
    """What the log tells of a request."""

    path: str
    key: str | None = None
    verdict: Verdict | None = None
    error: str | None = None
    began: float = field(default_factory=time.monotonic)

    def line(self, status: int) -> str:
        """Return it as a line of JSON."""
        told: dict[str, Any] = {"path": self.path, "key": self.key, "status": status}
        told["ms"] = round(1000 * (time.monotonic() - self.began), 1)
        if self.verdict is not None:
            names = {"id", "stage", "label", "action"}
            told["verdict"] = self.verdict.model_dump(mode="json", include=names)
            told["images"] = len(self.verdict.images)
        if self.error is not None:
            told["error"] = self.error
        return json.dumps(told)


class Stalled(Exception):
    """A client that does not take its answer."""


class EventStream(StreamingResponse):
    """A stream of events that is closed, and told of, however it ends.

    It ends too if the client takes longer than ``patience_s`` over one part of it.
    """

    def __init__(
        self, events: AsyncGenerator[str], headers: dict[str, str], patience_s: float
    ) -> None:
        super().__init__(
            events, media_type="text/event-stream", headers={**headers, "cache-control": "no-cache"}
        )
        self.ended = ExitStack()
        """Closed when the stream has ended."""
        self._events, self._patience_s = events, patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        except Stalled:
            pass  # the answer is left unfinished, and the connection closed
        finally:
            await self._events.aclose()
            self.ended.close()

    async def stream_response(self, send: Send) -> None:
        """Send the events one by one.

        Raises:
            Stalled: If the client does not take one in time.
        """

        async def hurried(message: Message) -> None:
            try:
                async with asyncio.timeout(self._patience_s):
                    await send(message)
            except TimeoutError:
                raise Stalled from None

        await super().stream_response(hurried)


class Served:
    """A guarded model behind a server."""

    def __init__(self, guard: SafeCoDeGuard, name: str, config: ServerConfig) -> None:
        self.guard, self.name, self.config = guard, name, config
        self.metrics = Metrics()
        self.keys = Keys(config.keys)
        self.places = Places(config.per_key)
        self.guards = Narrowed(guard, most=config.narrowed)
        self._created = int(time.time())

    def admitting(self, path: str, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """Return a route: whoever may not come in is told so; errors have the API's form."""

        async def route(request: Request) -> Response:
            entry, held = Entry(path), ExitStack()
            try:
                entry.key = self.keys.name_of(request.headers)
                held.enter_context(self.places.one_of(entry.key))
                response = await answer(request, entry)
            except Exception as error:
                failure = refused(error)
                if failure.status >= 500:
                    entry.error = type(error).__name__
                response = _failed(failure)
            except BaseException:  # whoever runs the app has cancelled it
                held.close()
                raise

            def ended() -> None:
                held.close()
                self.metrics.ended(path, response.status_code, time.monotonic() - entry.began)
                log.info(entry.line(response.status_code))

            if isinstance(response, EventStream):
                response.ended.callback(ended)
            else:
                ended()
            return response

        route.__annotations__ = {"request": Request, "return": Response}
        return route

    # -- answers ------------------------------------------------------------------------------

    async def complete(self, request: Request, entry: Entry) -> Response:
        """Answer a conversation, whole or as a stream."""
        asked = await _read(request, ChatRequest, self.config.patience_s)
        self._require_model(asked)
        guard = await run_in_threadpool(self.guards.guard, asked.safecode.policy)
        messages, completion = asked.read(), Completion(self.name)
        options = {**asked.options(), "cache_scope": entry.key}
        if asked.stream:
            parts = PartsOf(completion, with_usage=asked.wants_usage)
            chunks = guard.astream(messages, stop=asked.stop, **options)
            stream = _events(chunks, parts, guard.policy.refusal_text)
            first = await _unless_gone(request, _first(stream))
            headers = self._note(entry, parts.verdicts)
            return EventStream(_after(first, stream), headers, self.config.patience_s)
        turn = guard.ainvoke(messages, stop=asked.stop, **options)
        try:
            reply = await _unless_gone(request, turn)
        except TurnBlocked as blocked:
            said = completion.withheld(blocked.verdict, guard.policy.refusal_text)
            return JSONResponse(said, headers=self._note(entry, [blocked.verdict]))
        headers = self._note(entry, Verdict.all_from_message(reply))
        return JSONResponse(completion.whole(reply), headers=headers)

    async def check(self, request: Request, entry: Entry) -> Response:
        """Judge, and answer nothing."""
        asked = await _read(request, CheckRequest, self.config.patience_s)
        self._require_model(asked)
        guard = await run_in_threadpool(self.guards.guard, asked.safecode.policy)
        call = None if asked.tool_call is None else call_of(asked.tool_call)
        check = guard.acheck(asked.read(), stage=asked.stage, tool_call=call, answer=asked.answer)
        verdict = await _unless_gone(request, check)
        headers = self._note(entry, [verdict])
        return JSONResponse({"object": "check", "verdict": verdict.to_json()}, headers=headers)

    async def guardrail(self, request: Request, entry: Entry) -> Response:
        """Judge for LiteLLM's proxy."""
        asked = await _read(request, GuardrailRequest, self.config.patience_s)
        found, verdicts = await _unless_gone(request, guardrail(self.guard, asked))
        self._note(entry, verdicts)
        return JSONResponse(found)

    async def models(self, request: Request, entry: Entry) -> Response:
        """List the one model that is served."""
        model = {"id": self.name, "object": "model", "created": self._created}
        return JSONResponse({"object": "list", "data": [{**model, "owned_by": "safecode-guard"}]})

    async def told_metrics(self, request: Request, entry: Entry) -> Response:
        """Return the metrics in Prometheus' form."""
        return Response(self.metrics.text(self.places.under_way - 1), media_type=CONTENT_TYPE)

    async def health(self) -> dict[str, str]:
        """Return that the server is there; whoever asks needs no key."""
        return {"status": "ok"}

    # -- what they share ----------------------------------------------------------------------

    def _require_model(self, asked: Conversation) -> None:
        if asked.model not in (None, self.name):
            raise Refused(404, "model_not_found", f"There is no model but {self.name!r} here.")

    def _note(self, entry: Entry, verdicts: Sequence[Verdict]) -> dict[str, str]:
        """Count verdicts, put the gravest into the log; return the header that tells it."""
        for verdict in verdicts:
            self.metrics.verdict(verdict)
        entry.verdict = gravest(verdicts)
        return verdict_header(verdicts)


async def _events(chunks: Any, parts: PartsOf, refusal: str) -> AsyncGenerator[str]:
    """Yield a stream's events; an error after its first byte is the last of them."""
    begun = False
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                for part in parts.of(chunk):
                    yield event(part)
                    begun = True
    except TurnBlocked as blocked:
        for part in parts.stopped(blocked.verdict, refusal):
            yield event(part)
    except Exception as error:
        if not begun:
            raise
        failure = refused(error)
        yield event(error_body(failure.code, failure.message, kind="server_error"))
        return
    for part in parts.end():
        yield event(part)
    yield DONE


async def _first(stream: AsyncGenerator[str]) -> str:
    return await anext(stream)


async def _after(first: str, stream: AsyncGenerator[str]) -> AsyncGenerator[str]:
    async with aclosing(stream):
        yield first
        async for each in stream:
            yield each


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what some work gives; cancel it if the client goes away.

    Raises:
        Refused: If the client has gone.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Refused(499, "client_closed_request", "The client went away.")
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read(request: Request, form: type[Form], patience_s: float) -> Form:
    """Return what is asked.

    Raises:
        ValidationError: If it is not of that form.
        Refused: If it is too large, or does not come in time.
    """
    try:
        async with asyncio.timeout(patience_s):
            body = await request.body()
    except TimeoutError:
        raise Refused(408, "request_timeout", "The request did not come in time.") from None
    if len(body) <= _SMALL:
        return form.model_validate_json(body)
    return await run_in_threadpool(form.model_validate_json, body)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).name.lower()
    refusal = Refused(error.status_code, code, f"{error.detail}.")
    refusal.headers |= error.headers or {}
    return _failed(refusal)


def _failed(failure: Refused) -> JSONResponse:
    kind = "server_error" if failure.status >= 500 else "invalid_request_error"
    body = error_body(failure.code, failure.message, kind=kind)
    return JSONResponse(body, failure.status, headers=failure.headers)


def _schema(form: type[BaseModel]) -> dict[str, Any]:
    return form.model_json_schema(ref_template="#/components/schemas/{model}")
