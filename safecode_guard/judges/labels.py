"""Labels read from next-token logits: a probability, nothing to parse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from safecode_guard.errors import JudgeError
from safecode_guard.models.protocol import Vocabulary

LogitLabel = Literal["safe", "unsafe"]
_LEADS: Final = ("", " ", "\n")


@dataclass(frozen=True)
class LabelTokens:
    """First tokens by which a model begins each label; the two sets share no token."""

    safe: frozenset[int]
    unsafe: frozenset[int]


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
        )
    return tokens


def verdict_probability(
    logits: Tensor,
    candidates: Tensor,
    vocabulary: Vocabulary,
    *,
    bias: float = 0.0,
    temperature: float = 1.0,
    labels: LabelTokens | None = None,
) -> tuple[float, float]:
    """Return (p_unsafe, label mass) of next-token logits.

    ``p_unsafe = sigmoid((log P(unsafe) - log P(safe) - bias) / temperature)``; the label mass is
    P(safe) + P(unsafe): how far the model means to answer with a label at all. Where the
    candidates are only a part of the vocabulary (a server), their values are taken as
    log-probabilities as they are; a whole vocabulary is normalised here.

    Args:
        logits: [n] next-token logits.
        candidates: int64 [n], the token of each column.
        vocabulary: The judge's tokenizer.
        bias: Log-odds taken off the unsafe side (calibration).
        temperature: Divides the log-odds (calibration).
        labels: The result of `label_tokens`, to save finding them again.

    Raises:
        JudgeError: If a logit is not a number, or no candidate is a label.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, not {temperature!r}")
    tokens = labels or label_tokens(vocabulary)
    scores = logits.detach().float().cpu()
    whole = scores.numel() >= vocabulary.size
    log_p = scores.log_softmax(-1) if whole else scores
    if bool(torch.isnan(log_p).any()):  # an infinite or missing logit becomes one, too
        raise JudgeError("The judge's logits are not finite.", hint="Try another dtype or device.")
    safe = _log_mass(log_p, candidates.cpu(), tokens.safe)
    unsafe = _log_mass(log_p, candidates.cpu(), tokens.unsafe)
    mass = min(math.exp(safe) + math.exp(unsafe), 1.0)
    if mass == 0.0:
        return 0.5, 0.0
    return _sigmoid((unsafe - safe - bias) / temperature), mass


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


def _log_mass(log_p: Tensor, candidates: Tensor, ids: frozenset[int]) -> float:
    chosen = torch.isin(candidates, torch.tensor(sorted(ids), dtype=candidates.dtype))
    if not bool(chosen.any()):
        raise JudgeError("No candidate of the judge's logits begins a label.")
    return float(log_p[chosen].logsumexp(-1))


def _sigmoid(value: float) -> float:
    if value >= 0:
        return 1.0 / (1.0 + math.exp(-value)) if value < 700 else 1.0
    power = math.exp(value) if value > -700 else 0.0
    return power / (1.0 + power)
