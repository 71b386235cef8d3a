"""The proof that a server steers: a test pair that must write a token of our choice."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

from safecode_guard.engines.vllm.prompt import Prompt
from safecode_guard.engines.vllm.replies import Reply
from safecode_guard.engines.vllm.requests import greedy, of_main, of_twin
from safecode_guard.errors import SteeringUnproven
from safecode_guard.models.protocol import Sampling
from safecode_guard.steering.pairs.acceptance import Certified, Sealed, accept
from safecode_guard.steering.pairs.cover import Cover
from safecode_guard.steering.pairs.spec import PairSpec
from safecode_guard.turns.turn import TextPart, Turn, TurnMessage

if TYPE_CHECKING:
    from safecode_guard.engines.vllm.engine import VLLMEngine

_ASKED: Final = Turn((TurnMessage("user", (TextPart("Hello"),)),))
_TRIES: Final = 5
_PUSH: Final = 1000.0
"""Above any logit, so that the token is written whatever the model thinks of it."""


async def probe(engine: VLLMEngine) -> None:
    """Send test pairs until one is sealed.

    Raises:
        SteeringUnproven: If none is: the plug-in is missing, or its scheduler is.
        ModelUnavailable: If the server cannot be reached, or refuses.
    """
    for _ in range(_TRIES):
        wanted = _any_token(engine)
        spec = _spec(engine, wanted)
        main, twin = await _answers(engine, spec)
        match accept(spec, main.tokens, twin.tokens):
            case Sealed(tokens) if tokens[0] == wanted:
                return
            case Certified():
                continue
            case _:
                raise SteeringUnproven(
                    "The model's server does not steer: it runs without the plug-in.",
                    hint="Start it with the flags that `safecode-guard vllm flags` prints.",
                )
    raise SteeringUnproven(
        f"The model's server parted {_TRIES} test pairs: it runs without the plug-in's scheduler.",
        hint="Start it with the flags that `safecode-guard vllm flags` prints.",
    )


async def _answers(engine: VLLMEngine, spec: PairSpec) -> tuple[Reply, Reply]:
    fields = greedy(Sampling(do_sample=False), budget=2)
    prompt = Prompt(
        engine.client, lambda: engine.writer.conversation(_ASKED), headers=engine.pinned(0)
    )
    halves = [
        asyncio.ensure_future(anext(prompt.answer(of_main(fields, spec), spec))),
        asyncio.ensure_future(anext(prompt.answer(of_twin(fields, spec), spec.twin))),
    ]
    try:
        first, second = await asyncio.gather(*halves)
    finally:  # a half that fails would leave the other waiting
        for half in halves:
            half.cancel()
        await asyncio.gather(*halves, return_exceptions=True)
    return first, second


def _spec(engine: VLLMEngine, token: int) -> PairSpec:
    vocabulary = engine.vocabulary
    return PairSpec(
        pair=secrets.token_hex(16),
        role="main",
        steps=1,
        most=1,
        alpha=0.0,
        normalise="none",
        top_k=vocabulary.size,
        plausibility=0.0,
        push=_PUSH,
        eos=tuple(sorted(vocabulary.eos_ids)),
        halt=engine.marks.halt,
        seal=engine.marks.seal,
        cover=Cover(everywhere=frozenset({token})),
    )


def _any_token(engine: VLLMEngine) -> int:
    vocabulary = engine.vocabulary
    while (token := secrets.randbelow(vocabulary.size)) in vocabulary.special_ids:
        pass
    return token
