"""A session on a server: requests, side by side, one or two for each answer."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from safecode_guard.engines.vllm import requests
from safecode_guard.engines.vllm.bridge import Pump
from safecode_guard.engines.vllm.client import COMPLETIONS, until
from safecode_guard.engines.vllm.guided import GuidedAnswer, Specs
from safecode_guard.engines.vllm.prompt import Prompt
from safecode_guard.engines.vllm.replies import Reply, label_scores
from safecode_guard.errors import LogitsUnavailable
from safecode_guard.models.protocol import Delta, Job, LabelScores, Question, Tool
from safecode_guard.output.request import OutputForm
from safecode_guard.output.stops import TextStream
from safecode_guard.steering.safecode.guided import (
    GuardedSteering,
    GuidedSteps,
    PaperSteering,
)
from safecode_guard.turns.turn import Turn

if TYPE_CHECKING:
    from safecode_guard.engines.vllm.engine import VLLMEngine

_STEERED = (GuidedSteps, PaperSteering, GuardedSteering)


class VLLMSession:
    """Turns of one batch on a `VLLMEngine`; they are answered side by side.

    Example:
        >>> session = engine.open([turn], Sampling(do_sample=False))         # doctest: +SKIP
        >>> session.ask([Question(0, turn.ask("Safe or unsafe?"), labels)])  # doctest: +SKIP
        >>> "".join(delta.text for delta in session.answer([Job(0, turn)]))  # doctest: +SKIP
    """

    def __init__(self, engine: VLLMEngine, tools: Sequence[Tool] = ()) -> None:
        self._engine = engine
        self._tools = tuple(tools)
        self._pumps: list[Pump[Delta]] = []
        self._rank = secrets.randbelow(engine.replicas)
        self._closed = False

    def ask(self, questions: Sequence[Question]) -> list[LabelScores]:
        """Return the scores of each question's tokens; see `Session.ask`.

        The server has cached the pictures and the beginning of the prompt for the answer.
        """
        return self._engine.loop.run(lambda: self._asked(questions))

    def answer(self, jobs: Sequence[Job]) -> Generator[Delta]:
        """Answer turns; see `Session.answer`."""
        yield from self._pump(jobs).items()

    async def aanswer(self, jobs: Sequence[Job]) -> AsyncGenerator[Delta]:
        """Answer turns on the event loop, as `answer` does."""
        async with aclosing(self._pump(jobs).aitems()) as deltas:
            async for delta in deltas:
                yield delta

    def close(self) -> None:
        """End the requests under way."""
        self._closed = True
        for pump in self._pumps:
            pump.stop()

    def _pump(self, jobs: Sequence[Job]) -> Pump[Delta]:
        pump = Pump(self._engine.loop, lambda: self._answers(jobs))
        self._pumps.append(pump)
        if self._closed:
            pump.stop()
        return pump

    # -- on the engine's loop -----------------------------------------------------------------

    async def _asked(self, questions: Sequence[Question]) -> list[LabelScores]:
        return list(await asyncio.gather(*map(self._scores, questions)))

    async def _scores(self, question: Question) -> LabelScores:
        found: dict[int, float] = {}
        for tokens in _parts(sorted(question.tokens)):
            async with self._engine.slots:
                reply = await self._engine.client.post(
                    COMPLETIONS,
                    partial(self._label_body, question.turn, tokens),
                    headers=self._pinned(question.index),
                )
            found |= label_scores(reply, tokens)
        return found

    def _label_body(self, turn: Turn, tokens: Sequence[int]) -> requests.Fields:
        return self._engine.writer.conversation(turn) | requests.label_fields(tokens)

    async def _answers(self, jobs: Sequence[Job]) -> AsyncGenerator[Delta]:
        """Answer jobs side by side; each ends with a finish or with an error of its own."""
        come: asyncio.Queue[Delta] = asyncio.Queue()
        tasks = [asyncio.create_task(self._answered(job, come)) for job in jobs]
        running = len(jobs)
        try:
            while running:
                delta = await come.get()
                running -= delta.finish is not None or delta.error is not None
                yield delta
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answered(self, job: Job, come: asyncio.Queue[Delta]) -> None:
        try:
            async with (
                until(job.deadline),
                self._engine.slots,
                aclosing(self._deltas(job)) as deltas,
            ):
                async for delta in deltas:
                    come.put_nowait(delta)
        except Exception as error:  # a record that cannot be steered, a server that fails
            come.put_nowait(Delta(job.index, error=error))

    async def _deltas(self, job: Job) -> AsyncGenerator[Delta]:
        stream = TextStream(self._engine.vocabulary, stop=job.sampling.stop)
        tokens: list[int] = []
        prompt_tokens = 0
        async with aclosing(self._pieces(job)) as pieces:
            async for piece in pieces:
                prompt_tokens = piece.prompt_tokens or prompt_tokens
                text, finish = self._shown(piece, stream, tokens), piece.finish
                if stream.stopped:
                    finish = "stop"
                if finish is not None:
                    rest = "" if piece.said is not None else stream.flush()
                    yield Delta(job.index, text + rest, finish, tuple(tokens), prompt_tokens)
                    return
                yield Delta(job.index, text)

    def _shown(self, piece: Reply, stream: TextStream, tokens: list[int]) -> str:
        """Return the text of a piece, and add its tokens to those of the answer."""
        text = ""
        for token in piece.tokens:
            tokens.append(token)
            if token not in self._engine.vocabulary.eos_ids:
                text += stream.push(token)
            if stream.stopped:
                break
        return text if piece.said is None else piece.said

    async def _pieces(self, job: Job) -> AsyncGenerator[Reply]:
        limits = [job.sampling.max_tokens, job.strategy.max_tokens if job.strategy else None]
        budget = min(limit for limit in limits if limit is not None)
        main = self._prompt(job, job.turn)
        async with aclosing(
            self._plain(job, main, budget)
            if job.strategy is None
            else self._guided(job, main, budget)
        ) as pieces:
            async for piece in pieces:
                yield piece

    def _plain(self, job: Job, prompt: Prompt, budget: int) -> AsyncGenerator[Reply]:
        fields = requests.plain(job.sampling, budget=budget)
        return prompt.answer(fields | _form(job.options), live=job.live)

    async def _guided(self, job: Job, main: Prompt, budget: int) -> AsyncGenerator[Reply]:
        steering = job.strategy
        if not isinstance(steering, GuidedSteps) or type(steering) not in _STEERED:
            raise LogitsUnavailable(
                "The server runs no steering but recipes 'paper' and 'guarded' of SafeCoDe.",
                hint="Change decoding.recipe, or guard a ChatTransformers.",
            )
        answer = GuidedAnswer(
            main,
            self._prompt(job, steering.second or job.turn),
            Specs(steering, self._engine.coverage, self._engine.marks),
            lambda budget: requests.greedy(job.sampling, budget=budget),
            budget,
        )
        answer.fields(budget)  # what cannot be drawn is refused before anything is sent
        await self._engine.require_plugin()
        async with aclosing(answer.pieces(live=job.live)) as pieces:
            async for piece in pieces:
                yield piece

    def _prompt(self, job: Job, turn: Turn) -> Prompt:
        form = OutputForm.from_options({**job.options, "tools": self._tools})
        return Prompt(
            self._engine.client,
            lambda: self._engine.writer.conversation(
                turn, self._tools, job.options.get("tool_choice")
            ),
            tools=bool(self._tools),
            forced=form.forced_tool,
            headers=self._pinned(job.index),
        )

    def _pinned(self, index: int) -> Mapping[str, str] | None:
        """Return the header that keeps all requests of one turn on one replica."""
        return self._engine.pinned(self._rank + index)


def _parts(tokens: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield tokens, as many at a time as one answer has scores for."""
    for at in range(0, len(tokens), requests.MOST_SCORES):
        yield tokens[at : at + requests.MOST_SCORES]


def _form(options: Mapping[str, Any]) -> requests.Fields:
    """Return what holds an answer to a form, by the server's own grammar."""
    form = options.get("response_format")
    return {"response_format": form} if form else {}
