"""A model behind an OpenAI-compatible endpoint as the judge: vLLM, SGLang, Ollama, hosted ones."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
import weakref
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

from safecode_guard.errors import JudgeError, JudgeUnavailable
from safecode_guard.judges.completions import FORMS, Answer, body, prompt_in, read
from safecode_guard.judges.content import Block, judge_content
from safecode_guard.judges.deadlines import earliest, remaining
from safecode_guard.judges.endpoint import Endpoint, require_parts
from safecode_guard.judges.failures import failed_judgement, unreadable_reply
from safecode_guard.judges.loops import LoopThread
from safecode_guard.judges.prompts import JudgePrompt, prompt_for
from safecode_guard.judges.protocol import BaseJudge, JudgeAbilities, JudgeRequest
from safecode_guard.models.families import Family
from safecode_guard.policy import HttpJudgeConfig
from safecode_guard.verdict import Judgement, ReplyForm

if TYPE_CHECKING:
    import httpx

_NOT_UNDERSTOOD: Final = frozenset({400, 415, 422, 501})
"""How endpoints refuse a form of reply that they do not know."""


class HttpJudge(BaseJudge):
    """Asks a model behind an OpenAI-compatible endpoint; construction connects to nothing.

    The label is read from the next token's probabilities where the endpoint gives them, else from
    JSON that it holds to a schema, else from one word. The first form that could be read is kept
    to; the judgement's ``reply_form`` says which it was.

    Example:
        >>> config = HttpJudgeConfig(url="http://localhost:8000/v1", model="judge")
        >>> HttpJudge(config).id                                    # doctest: +SKIP
        'http:judge@5b0e1c9a7f31'
    """

    def __init__(
        self, config: HttpJudgeConfig, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Make the judge.

        Args:
            config: The endpoint, and the limits that hold for it.
            transport: How to connect, where the usual way is not the one: through a proxy, with a
                client's certificate, in tests.

        Raises:
            PolicyError: If the extra ``remote`` is not installed, or ``ca_file`` is not there.
        """
        require_parts(config)
        self.config = config
        self.id = f"http:{_name(config)}"
        self.prompt = _prompt(config)
        self.abilities = JudgeAbilities(categories=config.reply == "json", honours_deadline=True)
        self.prompt_version = _version(self.prompt, config)
        self._transport = transport
        self._lock = threading.Lock()
        self._line: _Line | None = None
        self._form: ReplyForm | None = None if config.reply == "auto" else config.reply

    def judge(self, request: JudgeRequest) -> Judgement:
        """Judge one request.

        Raises:
            JudgeTimeout: If there is no answer before the deadline, or in ``timeout_s``.
            JudgeUnavailable: If the endpoint cannot be reached, or refuses.
            JudgeError: If its answer is none.
        """
        asked = _Asked(self, request)
        line = self._connected()
        return line.loop.run(lambda: asked.answered(line.endpoint))

    async def ajudge(self, request: JudgeRequest) -> Judgement:
        """Judge one request; raises as `judge` does."""
        asked = _Asked(self, request)
        line = self._connected()
        return await line.loop.arun(lambda: asked.answered(line.endpoint))

    def judge_many(self, requests: list[JudgeRequest]) -> list[Judgement]:
        """Judge requests side by side; one that fails gives a failed judgement in its place."""
        if len(requests) < 2:
            return [self.judge(request) for request in requests]
        asked = [_Asked(self, request) for request in requests]
        line = self._connected()

        async def judge(one: _Asked) -> Judgement:
            try:
                return await one.answered(line.endpoint)
            except JudgeError as error:
                return failed_judgement(self.id, self.prompt_version, error)

        async def judged() -> list[Judgement]:
            return list(await asyncio.gather(*map(judge, asked)))

        return line.loop.run(judged)

    def close(self) -> None:
        """Close all connections; asked again, the judge connects again."""
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            line.close()

    def _connected(self) -> _Line:
        """Return the line to the endpoint, unless that is left alone for now."""
        with self._lock:
            if self._line is None or not self._line.loop.alive:
                self._line = _Line(self.config, self._transport)
                weakref.finalize(self, self._line.close)
            line = self._line
        line.endpoint.require_working()
        return line


class _Line:
    """An endpoint and the event loop that it lives on."""

    def __init__(self, config: HttpJudgeConfig, transport: httpx.AsyncBaseTransport | None) -> None:
        self.endpoint = Endpoint(config, transport=transport)
        self.loop = LoopThread("safecode-judge-http")

    def close(self) -> None:
        self.loop.stop(self.endpoint.close)


class _Asked:
    """One request on its way."""

    def __init__(self, judge: HttpJudge, request: JudgeRequest) -> None:
        self._judge = judge
        self._request = request
        self._started = time.monotonic()
        self._deadline = earliest(request.deadline, judge.config.timeout_s)
        remaining(self._deadline)

    @cached_property
    def _pictures(self) -> list[Block]:
        """The scene's pictures, encoded once, whatever is asked about them."""
        return judge_content(self._request, self._judge.prompt)[:-1]

    async def answered(self, endpoint: Endpoint) -> Judgement:
        """Return the judgement, in the form that is known to work or the first that does."""
        judge = self._judge
        if judge._form is not None:
            return self._judgement(judge._form, await self._answer(judge._form, endpoint))
        for form in FORMS:
            try:
                answer = await self._answer(form, endpoint)
            except JudgeUnavailable as error:
                if error.status in _NOT_UNDERSTOOD and form != FORMS[-1]:
                    continue
                raise
            if answer.status != "malformed":
                judge._form = form
                break
        return self._judgement(form, answer)

    async def _answer(self, form: ReplyForm, endpoint: Endpoint) -> Answer:
        reply = await endpoint.complete(partial(self._body, form), deadline=self._deadline)
        return read(form, reply, self._judge.config)

    def _body(self, form: ReplyForm) -> dict[str, Any]:
        config = self._judge.config
        question = prompt_in(form, self._judge.prompt, config).text(self._request)
        return body(form, [*self._pictures, {"type": "text", "text": question}], config)

    def _judgement(self, form: ReplyForm, answer: Answer) -> Judgement:
        judge, latency_ms = self._judge, (time.monotonic() - self._started) * 1000
        if answer.why is not None:
            raise JudgeError(
                f"The judge's answer cannot be read: {answer.why}.",
                hint="Set judge.reply to 'auto', or judge.judge_prompt to the model's question.",
                reason=answer.why,
            )
        if answer.status == "malformed":
            return unreadable_reply(
                judge.id, judge.prompt_version, latency_ms=latency_ms, reply_form=form
            )
        return Judgement(
            judge_id=judge.id,
            prompt_version=judge.prompt_version,
            p_unsafe=answer.p_unsafe,
            label=answer.label,
            label_mass=answer.label_mass,
            categories=answer.reply.categories if judge.abilities.categories else (),
            caption=answer.reply.caption,
            rationale=answer.reply.rationale,
            parse_status=answer.status,
            reply_form=form,
            latency_ms=latency_ms,
        )


def _name(config: HttpJudgeConfig) -> str:
    """Return the model's name without any path, and a digest of what is asked of whom."""
    asked = f"{config.url}\n{config.model}\n{config.reply}"
    name = config.model.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return f"{name}@{hashlib.sha256(asked.encode()).hexdigest()[:12]}"


def _prompt(config: HttpJudgeConfig) -> JudgePrompt:
    return prompt_for(Family("own", judge_prompt=config.judge_prompt))


def _version(prompt: JudgePrompt, config: HttpJudgeConfig) -> str:
    """Name everything that changes what is asked or how it is read, for the cache key."""
    parts = [prompt.version, config.reply]
    if config.reply in ("auto", "json"):
        parts.append(prompt_in("json", prompt, config).version)
    if config.reply in ("auto", "logprobs"):
        parts.append(f"mass={config.min_label_mass:g}")
    return "+".join(parts)
