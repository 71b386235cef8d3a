"""Mode ``reference``: what the authors' released code does, each quirk with a flag of its own.

It is here for parity tests and comparisons, not for use: among other things it replaces the
caller's sampling and token budget. One thing is *not* reproduced: there any verdict but the exact
word "unsafe" suppressed refusals. Here the direction comes from the policy, which boosts them
unless the label is safe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from safecode_guard.errors import ModelError, PolicyError
from safecode_guard.models.families import Family
from safecode_guard.steering.protocol import Direction, LogitsStrategy, SteeringContext
from safecode_guard.steering.safecode.contrast import Stages, steer
from safecode_guard.steering.safecode.guided import PaperSteering
from safecode_guard.steering.safecode.parameters import SteeringParameters
from safecode_guard.steering.safecode.refusals import RefusalLexicon
from safecode_guard.steering.safecode.trie import RefusalTrie, flat, spread
from safecode_guard.steering.seeds import generator

QUOTE_MARKS = frozenset("\"'“”‘’„«»`「」")


@dataclass(frozen=True)
class ReferenceQuirks:
    """Where the released code leaves the paper. With all of them off it is mode ``paper``."""

    force_phrase: bool = True
    """Unsafe: the best refusal phrase's first T tokens are forced; nothing is steered."""
    prefer_apologies: bool = True
    """Only phrases with a word of apology or inability compete, if there are any."""
    halve_alpha: bool = True
    """Safe: half of alpha."""
    scale_probabilities: bool = True
    """Safe: refusal tokens' probabilities times (1 - lambda_supp / 2), not z - lambda_supp."""
    whole_vocabulary: bool = True
    """Safe: refusal tokens are modulated wherever they are, not among the top_k alone."""
    every_phrase_token: bool = True
    """R is every token of every phrase, its "to" and "a" too."""
    greedy_first_token: bool = True
    """Safe: the first token is the most probable one, however the caller samples."""
    skip_leading_quote: bool = True
    """Safe: but not a quotation mark."""
    later_temperature: float | None = 0.8
    """Safe: later guided tokens are drawn at this temperature; None: as the caller samples."""
    end_early: bool = True
    """Safe: guidance ends at two words, the first of two letters or more and capitalised."""
    length_caps: bool = True
    """The verdict caps the answer's length."""
    unsafe_caps: Mapping[str, int] = field(default_factory=lambda: {"llava": 20, "qwen": 30})
    """New tokens after an unsafe verdict, by the beginning of the family's name."""
    unsafe_cap: int = 20
    """Of all other families."""
    safe_cap: int = 256

    def max_tokens(self, direction: Direction, family: Family) -> int | None:
        """Return the cap on new tokens; None for none."""
        if not self.length_caps:
            return None
        if direction == "suppress":
            return self.safe_cap
        caps = (cap for start, cap in self.unsafe_caps.items() if family.name.startswith(start))
        return next(caps, self.unsafe_cap)


def prepare_reference(
    context: SteeringContext,
    *,
    lexicon: RefusalLexicon,
    trie: RefusalTrie,
    quirks: ReferenceQuirks,
) -> LogitsStrategy:
    """Return the steering of one turn as the released code does it.

    Raises:
        PolicyError: If lambda_supp > 2 would make a probability negative.
    """
    parameters = context.parameters
    refusals = trie.tokens(key_words_only=not quirks.every_phrase_token)
    size = context.vocabulary.size
    max_tokens = quirks.max_tokens(context.direction, context.family)
    if context.direction == "suppress":
        return LoosenedAnswer(context, refusals, quirks, max_tokens)
    if not quirks.force_phrase:
        return PaperSteering(
            parameters, parameters.lambda_boost, size, refusals, max_tokens=max_tokens
        )
    preferred = [phrase for phrase in lexicon.phrases if phrase.apologetic]
    candidates = preferred if preferred and quirks.prefer_apologies else lexicon.phrases
    phrases = tuple(filter(None, (tuple(trie.spell(phrase)) for phrase in candidates)))
    return ForcedRefusal(parameters, phrases, max_tokens)


@dataclass(eq=False)
class ForcedRefusal:
    """Unsafe: one contrastive step chooses a refusal phrase, whose tokens are then forced.

    An object steers one answer. It keeps the phrase that it chose at step 0, since the text so
    far does not tell phrases with a common beginning apart.
    """

    parameters: SteeringParameters
    phrases: Sequence[Sequence[int]]
    max_tokens: int | None
    _chosen: Sequence[int] = ()

    @property
    def steps(self) -> int:
        """Number of guided tokens, T."""
        return self.parameters.guided_steps

    @property
    def views(self) -> Literal[1, 2]:
        """Two unless alpha is 0; only the first step needs them."""
        return 2 if self.parameters.alpha > 0 else 1

    def adjust(self, step: int, logits: Tensor, ids: Tensor, so_far: Tensor) -> Tensor:
        """Return one-hot logits for the phrase's next token; the clean ones after its end."""
        if step == 0:
            self._chosen = best_phrase(self._contrasted(logits), ids, self.phrases)
        if step >= len(self._chosen):
            return logits[0]
        return only(self._chosen[step], ids)

    def _contrasted(self, logits: Tensor) -> Tensor:
        parameters = self.parameters
        return steer(
            logits,
            None,
            alpha=parameters.alpha,
            normalise=parameters.normalise,
            top_k=parameters.top_k,
            plausibility=0,
        ).contrasted


class LoosenedAnswer:
    """Safe: refusal tokens made less probable, and a way of its own to choose the next token."""

    def __init__(
        self,
        context: SteeringContext,
        refusals: frozenset[int],
        quirks: ReferenceQuirks,
        max_tokens: int | None,
    ) -> None:
        parameters = context.parameters
        if quirks.scale_probabilities and parameters.lambda_supp > 2:
            raise PolicyError(
                f"decoding.lambda_supp = {parameters.lambda_supp:g} makes probabilities negative.",
                hint="Mode 'reference' multiplies them by 1 - lambda_supp / 2: at most 2.",
            )
        self.parameters = parameters
        self.max_tokens = max_tokens
        self.steps = parameters.guided_steps
        self.views: Literal[1, 2] = 2 if parameters.alpha > 0 else 1
        self._refusals = flat(refusals)
        self._quirks = quirks
        self._vocabulary = context.vocabulary
        self._seed = context.seed

    def adjust(self, step: int, logits: Tensor, ids: Tensor, so_far: Tensor) -> Tensor:
        """Return one-hot logits of the chosen token, or the clean ones where guidance is over."""
        quirks = self._quirks
        if quirks.end_early and ends_guidance(self._vocabulary.decode(so_far.tolist())):
            return logits[0]
        steered = self.stages(step, logits, ids, so_far).steered
        if step == 0 and quirks.greedy_first_token:
            return only(self._first_token(steered, ids), ids)
        if step > 0 and quirks.later_temperature is not None:
            return only(self._drawn(step, steered / quirks.later_temperature, ids), ids)
        return steered

    def stages(self, step: int, logits: Tensor, ids: Tensor, so_far: Tensor) -> Stages:
        """Return the logits after each stage, before a token is chosen from them."""
        parameters, quirks = self.parameters, self._quirks
        alpha = parameters.alpha / 2 if quirks.halve_alpha else parameters.alpha
        top_k = ids.numel() if quirks.whole_vocabulary else parameters.top_k
        shares = spread(self._refusals, ids, size=self._vocabulary.size)
        push = -parameters.lambda_supp
        if (
            quirks.scale_probabilities
        ):  # p (1 - lambda / 2), renormalised, is z + log(1 - lambda / 2)
            factor = 1 - parameters.lambda_supp / 2
            push = math.log(factor) if factor > 0 else -torch.finfo(logits.dtype).max
        return steer(
            logits,
            push * shares,
            alpha=alpha,
            normalise=parameters.normalise,
            top_k=top_k,
            plausibility=parameters.plausibility,
        )

    def _first_token(self, steered: Tensor, ids: Tensor) -> int:
        for column in steered.argsort(descending=True).tolist():
            token = int(ids[column])
            text = self._vocabulary.decode([token]).strip()
            if not self._quirks.skip_leading_quote or text not in QUOTE_MARKS:
                return token
        return int(ids[steered.argmax()])

    def _drawn(self, step: int, scores: Tensor, ids: Tensor) -> int:
        draws = generator(self._seed, "token", step)
        return int(ids[torch.multinomial(scores.softmax(-1).cpu(), 1, generator=draws)])


def best_phrase(contrasted: Tensor, ids: Tensor, phrases: Sequence[Sequence[int]]) -> Sequence[int]:
    """Return the phrase whose tokens have the largest sum of first-step probabilities.

    So longer phrases win over shorter ones that they contain; the released code does the same.
    """
    probability = dict(zip(ids.tolist(), contrasted.softmax(-1).tolist()))
    return max(phrases, key=lambda phrase: sum(probability.get(token, 0.0) for token in phrase))


def ends_guidance(text: str) -> bool:
    """Return whether a text has two words, the first capitalised and of two letters or more."""
    words = text.split()
    return len(words) >= 2 and len(words[0]) >= 2 and words[0][0].isupper()


def only(token: int, ids: Tensor) -> Tensor:
    """Return logits [n] that leave one token: 0 for it, -inf elsewhere.

    Raises:
        ModelError: If the token is not among the candidates.
    """
    chosen = ids == token
    if not chosen.any():
        raise ModelError(
            f"Token {token} is not among the model's candidates.",
            hint="Mode 'reference' needs the whole vocabulary; use 'guarded' with this model.",
        )
    return torch.zeros(ids.shape, device=ids.device).masked_fill(~chosen, -torch.inf)
