"""Recipe ``reference``: what the authors' released code does, each quirk with its own flag.

It is here for parity tests and comparisons, not for use: among other things it replaces the
caller's sampling and token budget. One thing is *not* reproduced: there any verdict but the exact
word "unsafe" suppressed refusals. Here the direction comes from the policy, which boosts them
unless the label is safe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from safecode_guard.errors import ModelError, PolicyError
from safecode_guard.models.families import Family
from safecode_guard.models.protocol import Step, Vocabulary
from safecode_guard.steering.protocol import Direction
from safecode_guard.steering.safecode.contrast import steer
from safecode_guard.steering.safecode.guided import AsRecorded, PaperSteering
from safecode_guard.steering.safecode.parameters import SteeringParameters
from safecode_guard.steering.safecode.record import Quirk, SafeCoDeRecord
from safecode_guard.steering.safecode.trie import RefusalTrie
from safecode_guard.steering.seeds import generator
from safecode_guard.turns.turn import Turn

QUOTE_MARKS = frozenset("\"'“”‘’„«»`「」")


@dataclass(frozen=True)
class ReferenceQuirks:
    """Where the released code leaves the paper. With all of them off it is recipe ``paper``."""

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

    def check(self, parameters: SteeringParameters) -> None:
        """Refuse a suppression that would make probabilities negative.

        Raises:
            PolicyError: If lambda_supp > 2 while probabilities are scaled.
        """
        if self.scale_probabilities and parameters.lambda_supp > 2:
            raise PolicyError(
                f"decoding.lambda_supp = {parameters.lambda_supp:g} makes probabilities negative.",
                hint="Recipe 'reference' multiplies them by 1 - lambda_supp / 2: at most 2.",
            )

    def changed(
        self, parameters: SteeringParameters, direction: Direction, family: Family
    ) -> dict[str, Any]:
        """Return the values of a record that the quirks change or add, by name."""
        capped = {"max_tokens": self.max_tokens(direction, family)}
        if direction == "suppress":
            return capped | self._suppressing(parameters)
        if self.force_phrase:
            return capped | {
                "push": 0.0,
                "plausibility": 0.0,
                "quirks": self._on("force_phrase", "prefer_apologies"),
            }
        return capped | {
            "push": parameters.lambda_boost,
            "quirks": self._on("every_phrase_token"),
        }

    def max_tokens(self, direction: Direction, family: Family) -> int | None:
        """Return the cap on new tokens; None for none."""
        if not self.length_caps:
            return None
        if direction == "suppress":
            return self.safe_cap
        caps = (cap for start, cap in self.unsafe_caps.items() if family.name.startswith(start))
        return next(caps, self.unsafe_cap)

    def _suppressing(self, parameters: SteeringParameters) -> dict[str, Any]:
        pushed = ("every_phrase_token",) if parameters.lambda_supp else ()
        first = ("greedy_first_token", "skip_leading_quote") if self.greedy_first_token else ()
        return {
            "alpha": parameters.alpha / 2 if self.halve_alpha else parameters.alpha,
            "push": self._suppression(parameters.lambda_supp),
            "top_k": None if self.whole_vocabulary else parameters.top_k,
            "quirks": self._on(*pushed, *first, "end_early"),
            "later_temperature": self.later_temperature,
        }

    def _suppression(self, lambda_supp: float) -> float:
        if not self.scale_probabilities:
            return -lambda_supp
        # p (1 - lambda / 2), renormalised, is z + log(1 - lambda / 2)
        factor = 1 - lambda_supp / 2
        return math.log(factor) if factor > 0 else -torch.finfo(torch.float32).max

    def _on(self, *names: Quirk) -> tuple[Quirk, ...]:
        return tuple(name for name in names if getattr(self, name))


def phrases_to_force(trie: RefusalTrie, *, only_apologies: bool) -> tuple[tuple[int, ...], ...]:
    """Return the phrases that compete, as tokens; all of them where none apologises."""
    phrases = trie.lexicon.phrases
    apologies = [phrase for phrase in phrases if phrase.apologetic] if only_apologies else []
    return tuple(filter(None, (tuple(trie.spell(phrase)) for phrase in apologies or phrases)))


@dataclass(eq=False)
class ForcedRefusal(AsRecorded):
    """Unsafe: one contrastive step chooses a refusal phrase, whose tokens are then forced.

    An object steers one answer. It keeps the phrase that it chose at step 0, since the text so
    far does not tell phrases with a common beginning apart.
    """

    record: SafeCoDeRecord
    phrases: Sequence[Sequence[int]]
    second: Turn | None = field(default=None, kw_only=True)
    """The turn with second views of its pictures; only the first step needs them."""
    _chosen: Sequence[int] = field(default=(), init=False)

    def adjust(self, step: Step) -> Tensor:
        """Return one-hot logits for the phrase's next token; the clean ones after its end."""
        if step.index == 0:
            self._chosen = best_phrase(self._contrasted(step.logits), step.ids, self.phrases)
        if step.index >= len(self._chosen):
            return step.logits[0]
        return only(self._chosen[step.index], step.ids)

    def _contrasted(self, logits: Tensor) -> Tensor:
        return steer(
            logits,
            None,
            alpha=self.record.alpha,
            normalise=self.record.normalise or "none",
            top_k=1,
            plausibility=0,
        ).contrasted


@dataclass(frozen=True)
class LoosenedAnswer(PaperSteering):
    """Safe: refusal tokens made less probable, and a way of its own to choose the next token."""

    vocabulary: Vocabulary

    def done(self, so_far: Sequence[int]) -> bool:
        """Return whether guidance is over: T tokens, or the beginning of a sentence."""
        if super().done(so_far):
            return True
        # each prefix by itself: a byte that cannot be decoded rewrites the text before it
        texts = (self.vocabulary.decode(so_far[: n + 1]) for n in range(len(so_far)))
        return "end_early" in self.record.quirks and any(map(ends_guidance, texts))

    def adjust(self, step: Step) -> Tensor:
        """Return one-hot logits of the chosen token, or what the caller may choose from."""
        steered, temperature = self.stages(step).steered, self.record.later_temperature
        if step.index == 0 and "greedy_first_token" in self.record.quirks:
            return only(self._first_token(steered, step.ids), step.ids)
        if step.index > 0 and temperature is not None:
            return only(self._drawn(step.index, steered / temperature, step.ids), step.ids)
        return steered

    def _first_token(self, steered: Tensor, ids: Tensor) -> int:
        for column in steered.argsort(descending=True).tolist():
            token = int(ids[column])
            text = self.vocabulary.decode([token]).strip()
            if "skip_leading_quote" not in self.record.quirks or text not in QUOTE_MARKS:
                return token
        return int(ids[steered.argmax()])

    def _drawn(self, index: int, scores: Tensor, ids: Tensor) -> int:
        draws = generator(self.record.seed or 0, "token", index)
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
            hint="Recipe 'reference' needs the whole vocabulary; use 'guarded' with this model.",
        )
    return torch.zeros(ids.shape, device=ids.device).masked_fill(~chosen, -torch.inf)
