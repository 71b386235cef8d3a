"""One guided answer on a server: pairs of requests, until every guided step is proven.

The *main* has the real pictures, the *twin* their second view. Nothing of the main is let out
before the twin's answer is in and proves it (`steering.pairs.acceptance`). A pair that parted has
certified its first tokens, and the next one goes on from there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from safecode_guard.engines.vllm.prompt import Prompt
from safecode_guard.engines.vllm.replies import Reply
from safecode_guard.engines.vllm.requests import Fields, of_main, of_twin
from safecode_guard.errors import ModelUnavailable, SteeringUnproven, UnsupportedGeneration
from safecode_guard.models.protocol import FinishReason
from safecode_guard.steering.pairs.acceptance import Certified, Sealed, Unproven, accept
from safecode_guard.steering.pairs.covering import Coverage
from safecode_guard.steering.pairs.spec import MOST_STEPS, PairSpec
from safecode_guard.steering.safecode.guided import GuidedSteps

TRIES: Final = 6
"""Pairs in a row that may certify nothing."""
_PAUSE_S: Final = 0.05


@dataclass(frozen=True)
class Marks:
    """Two tokens that the model itself never writes."""

    halt: int
    seal: int


@dataclass(frozen=True)
class Specs:
    """Makes the specs of one answer's pairs."""

    steering: GuidedSteps
    coverage: Coverage
    marks: Marks

    def after(self, written: Sequence[int], budget: int) -> PairSpec:
        """Return the main's spec of a new pair that begins after some tokens.

        Raises:
            UnsupportedGeneration: If more steps are guided than a pair may have.
            PolicyError: If the text stands within a model's reasoning.
        """
        record, vocabulary = self.steering.record, self.coverage.vocabulary
        guidance = self.coverage.of(self.steering, written)
        if guidance.most > MOST_STEPS:
            raise UnsupportedGeneration(
                f"A server guides at most {MOST_STEPS} tokens, not {guidance.most}.",
                hint="Lower decoding.guided_steps and decoding.most_steps.",
            )
        return PairSpec(
            pair=secrets.token_hex(16),
            role="main",
            steps=min(guidance.steps, budget),
            most=max(1, min(guidance.most, budget)),
            alpha=record.alpha,
            normalise=record.normalise or "none",
            top_k=record.top_k or vocabulary.size,
            plausibility=record.plausibility,
            push=record.push,
            eos=tuple(sorted(vocabulary.eos_ids)),
            halt=self.marks.halt,
            seal=self.marks.seal,
            cover=guidance.cover,
        )


@dataclass(frozen=True)
class GuidedAnswer:
    """An answer that is steered by pairs."""

    main: Prompt
    twin: Prompt
    specs: Specs
    fields: Callable[[int], Fields]
    """How tokens are drawn, given how many there may be."""
    budget: int

    async def pieces(self, *, live: bool) -> AsyncGenerator[Reply]:
        """Yield the answer, piece by piece; the last has a finish.

        Raises:
            SteeringUnproven: If nothing proves that the server steered; what was yielded is proven.
            ModelUnavailable: If the server cannot be reached, refuses, or is too slow.
        """
        written: list[int] = []
        idle = prompt_tokens = 0
        while (finish := self._ended(written)) is None:
            if self.specs.steering.done(written):
                async with aclosing(self._rest(written)) as rest:
                    async for piece in rest:
                        yield piece
                return
            spec = await asyncio.to_thread(self.specs.after, written, self.budget - len(written))
            before = len(written)
            async with aclosing(self._pair(spec, tuple(written), live=live)) as pieces:
                async for piece in pieces:
                    yield piece
                    if piece.finish is not None:
                        return
                    written += piece.tokens
                    prompt_tokens = piece.prompt_tokens or prompt_tokens
            idle = 0 if len(written) > before else idle + 1
            if idle == TRIES:
                raise SteeringUnproven(
                    f"{TRIES} pairs of requests in a row were parted by the server.",
                    hint="Start it with --scheduler-cls, as `safecode-guard vllm flags` prints it.",
                )
            await asyncio.sleep(_PAUSE_S * idle)
        yield Reply(finish=finish, prompt_tokens=prompt_tokens)

    def _ended(self, written: Sequence[int]) -> FinishReason | None:
        if written and written[-1] in self.specs.coverage.vocabulary.eos_ids:
            return "stop"
        return "length" if len(written) >= self.budget else None

    async def _rest(self, written: Sequence[int]) -> AsyncGenerator[Reply]:
        """Yield what follows the guided tokens, where the seal did not come."""
        fields = self.fields(self.budget - len(written))
        async with aclosing(self.main.answer(fields, written=written)) as pieces:
            async for piece in pieces:
                yield piece

    async def _pair(
        self, spec: PairSpec, written: tuple[int, ...], *, live: bool
    ) -> AsyncGenerator[Reply]:
        """Yield what one pair proves: all of the answer, if it is sealed, or its beginning."""
        halves = _Halves(self, spec, written)
        async with aclosing(halves.pieces(live=live)) as pieces:
            async for piece in pieces:
                yield piece


class _Halves:
    """The two requests of one pair, under way."""

    def __init__(self, answer: GuidedAnswer, spec: PairSpec, written: tuple[int, ...]) -> None:
        self._answer, self._spec, self._written = answer, spec, written
        self._come: asyncio.Queue[Reply | None] = asyncio.Queue()
        """Pieces of the main; None: there are no more."""

    async def pieces(self, *, live: bool) -> AsyncGenerator[Reply]:
        """Yield what is proven, once it is."""
        main = asyncio.create_task(self._read_main(live=live))
        twin = asyncio.create_task(self._read_twin())
        try:
            guided = await _first_failing(twin, main)
            async with aclosing(self._proven(guided, main)) as proven:
                async for piece in proven:
                    yield piece
        finally:
            for task in (main, twin):
                task.cancel()
            await asyncio.gather(main, twin, return_exceptions=True)

    async def _read_main(self, *, live: bool) -> None:
        spec, answer = self._spec, self._answer
        fields = of_main(answer.fields(answer.budget - len(self._written)), spec)
        pieces = answer.main.answer(fields, spec, written=self._written, live=live)
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    self._come.put_nowait(piece)
        finally:
            self._come.put_nowait(None)

    async def _read_twin(self) -> tuple[int, ...]:
        spec = self._spec
        fields = of_twin(self._answer.fields(spec.longest + 1), spec)
        twin = self._answer.twin.answer(fields, spec.twin, written=self._written)
        tokens: tuple[int, ...] = ()
        async with aclosing(twin) as pieces:
            async for piece in pieces:
                tokens += piece.tokens
        return tokens

    async def _proven(
        self, guided: tuple[int, ...], main: asyncio.Task[None]
    ) -> AsyncGenerator[Reply]:
        sealed = guided[-1:] == (self._spec.seal,)
        whole = Reply()
        while whole.finish is None and not (sealed and len(whole.tokens) >= len(guided)):
            whole = _joined(whole, await self._next(main))
        match accept(self._spec, whole.tokens, guided):
            case Unproven():
                raise SteeringUnproven(
                    "Nothing proves that the model's server steered the answer.",
                    hint="Start it with the plug-in, as `safecode-guard vllm flags` prints it.",
                )
            case Certified(tokens):
                if not self._answer.main.tools:  # calls are read by the server, from whole answers
                    yield Reply(tokens, prompt_tokens=whole.prompt_tokens)
            case Sealed():
                yield whole
                while whole.finish is None:
                    whole = await self._next(main)
                    self._require_unhalted(whole)
                    yield whole

    async def _next(self, main: asyncio.Task[None]) -> Reply:
        """Return the main's next piece; raises what reading it raises."""
        piece = await self._come.get()
        if piece is None:
            await main
            raise ModelUnavailable("The server broke an answer off.", hint="Look into its log.")
        return piece

    def _require_unhalted(self, piece: Reply) -> None:
        if self._spec.halt in piece.tokens:
            raise SteeringUnproven(
                "The model wrote the token by which a pair is halted.",
                hint="Nothing after it was let out; ask again without streaming.",
            )


def _joined(before: Reply, piece: Reply) -> Reply:
    return replace(
        piece,
        tokens=before.tokens + piece.tokens,
        prompt_tokens=piece.prompt_tokens or before.prompt_tokens,
    )


async def _first_failing(
    twin: asyncio.Task[tuple[int, ...]], main: asyncio.Task[None]
) -> tuple[int, ...]:
    """Return the twin's answer; a half that fails leaves the other waiting, so it ends both."""
    waited: set[asyncio.Task[object]] = {twin, main}
    while not twin.done():
        done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    return twin.result()
