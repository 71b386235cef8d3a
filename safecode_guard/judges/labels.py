"""Labels read from next-token log-probabilities: a probability, nothing to parse."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from safecode_guard.errors import JudgeError
from safecode_guard.models.protocol import LabelScores, Vocabulary

LogitLabel = Literal["safe", "unsafe"]
_LEADS: Final = ("", " ", "\n")
_ROUNDING: Final = 1e-2
"""By how much half precision may take a probability above 1."""
_SURE: Final = 1e-9
"""Keeps the log-odds of a judge that is quite sure finite."""


@dataclass(frozen=True)
class LabelTokens:
    """First tokens by which a model begins each label; the two sets share no token."""

    safe: frozenset[int]
    unsafe: frozenset[int]

    @property
    def all(self) -> frozenset[int]:
        """The tokens of both labels: those whose scores are asked for."""
        return self.safe | self.unsafe


def label_tokens(vocabulary: Vocabulary) -> LabelTokens:
    """Return the first tokens of each label, over its ways of being written.

    Ways are case, and a leading space or newline; where the lead is a token of its own it is
    dropped. Special tokens (such as the unknown one) say nothing and are left out; a token that
    can begin both labels is left out of both.

    Raises:
        JudgeError: If the vocabulary cannot tell the labels apart by their first token.
    """
    safe, unsafe = _first_tokens("safe", vocabulary), _first_tokens("unsafe", vocabulary)
    tokens = LabelTokens(frozenset(safe - unsafe), frozenset(unsafe - safe))
    if not tokens.safe or not tokens.unsafe:
        raise JudgeError(
            f"Vocabulary {vocabulary.id!r} begins 'safe' and 'unsafe' with the same tokens.",
            hint="Use a judge that writes its verdict, such as ChatJudge.",
            reason="the model has no tokens that tell the labels apart",
        )
    return tokens


def verdict_probability(
    scores: LabelScores, labels: LabelTokens, *, bias: float = 0.0, temperature: float = 1.0
) -> tuple[float, float]:
    """Return (p_unsafe, label mass) of the labels' next-token log-probabilities.

    ``p_unsafe = sigmoid((log P(unsafe) - log P(safe) - bias) / temperature)``; the label mass is
    P(safe) + P(unsafe): how far the model means to answer with a label at all.

    Args:
        scores: Log-probability of each label's tokens, over the whole vocabulary.
        labels: The result of `label_tokens`.
        bias: Log-odds taken off the unsafe side (calibration).
        temperature: Divides the log-odds (calibration).

    Raises:
        JudgeError: If a score is missing or is no log-probability.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, not {temperature!r}")
    safe, unsafe = _log_mass(scores, labels.safe), _log_mass(scores, labels.unsafe)
    mass = math.exp(safe) + math.exp(unsafe)
    if mass > 1 + _ROUNDING:
        raise _broken("add up to more than 1")
    if mass == 0.0:
        return 0.5, 0.0
    return _sigmoid((unsafe - safe - bias) / temperature), min(mass, 1.0)


def log_odds(p: float) -> float:
    """Return the log-odds of a probability, kept finite."""
    p = min(max(p, _SURE), 1 - _SURE)
    return math.log(p / (1 - p))


def written_probability(top: Sequence[tuple[str, float]]) -> tuple[float, float] | None:
    """Return (p_unsafe, label mass) of the likeliest next tokens as a server writes them.

    The vocabulary is out of reach, so a token counts by how it reads: the beginning of a label,
    in any case, of two letters or more for "unsafe" and of three for "safe". What is not on the
    list may have up to the probability of its last entry: that much is counted towards "unsafe"
    where it is missing, and nothing towards "safe".

    Returns:
        None where no entry begins a label: the model was not about to answer.

    Raises:
        JudgeError: If an entry is no log-probability, or all add up to more than 1.
    """
    values = [value for _, value in top]
    _require_log_probabilities(values)
    total = sum(map(math.exp, values))
    if total > 1 + _ROUNDING:
        raise _broken("add up to more than 1")
    safe = sum(math.exp(value) for text, value in top if _begins("safe", text, least=3))
    unsafe = sum(math.exp(value) for text, value in top if _begins("unsafe", text, least=2))
    mass = safe + unsafe
    if mass == 0.0:
        return None
    unseen = 0.0 if unsafe else max(0.0, min(math.exp(min(values)), 1 - total))
    return (unsafe + unseen) / (mass + unseen), min(mass, 1.0)


def _begins(label: LogitLabel, token: str, *, least: int) -> bool:
    # SentencePiece and byte-level vocabularies write a leading space in letters of their own.
    text = token.strip(" \n\t▁Ġ").lower()
    return len(text) >= least and label.startswith(text)


def _first_tokens(label: LogitLabel, vocabulary: Vocabulary) -> set[int]:
    found: set[int] = set()
    for form in (label, label.capitalize(), label.upper()):
        for lead in _LEADS:
            ids = vocabulary.encode(lead + form)
            while len(ids) > 1 and _is_blank(ids[0], vocabulary):
                ids = ids[1:]
            found.update(ids[:1])
    return found - vocabulary.special_ids


def _is_blank(token: int, vocabulary: Vocabulary) -> bool:
    # A special token decodes to nothing as well, but stands for something: the unknown.
    return token not in vocabulary.special_ids and not vocabulary.decode([token]).strip()


def _log_mass(scores: LabelScores, tokens: frozenset[int]) -> float:
    """Return the log of the summed probability of some tokens, -inf if there is none."""
    if missing := tokens - scores.keys():
        raise JudgeError(
            f"The model gave no score of {len(missing)} of the labels' tokens.",
            hint="Its engine must score every token that it is asked for.",
        )
    values = [scores[token] for token in tokens]
    _require_log_probabilities(values)
    most = max(values)
    if most == -math.inf:
        return most
    return most + math.log(sum(math.exp(value - most) for value in values))


def _require_log_probabilities(values: Iterable[float]) -> None:
    if any(math.isnan(value) or value > _ROUNDING for value in values):
        raise _broken("are no log-probabilities")


def _broken(how: str) -> JudgeError:
    return JudgeError(
        f"The labels' scores {how}.",
        hint="Try another dtype or device.",
        reason=f"the labels' scores {how}",
    )


def _sigmoid(value: float) -> float:
    if value >= 0:
        return 1.0 / (1.0 + math.exp(-value)) if value < 700 else 1.0
    power = math.exp(value) if value > -700 else 0.0
    return power / (1.0 + power)
