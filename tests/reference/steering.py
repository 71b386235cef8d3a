"""The formulas of steering as one would write them on a blackboard: loops, no tricks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from safecode_guard.models.protocol import Vocabulary
from safecode_guard.steering.safecode.refusals import RefusalLexicon

Numbers = Sequence[float]


def contrasted(z: Numbers, other: Numbers, alpha: float, normalise: str) -> list[float]:
    """Paper: z - a z~. rescale: that over 1 - a. vcd: (1 + a) z - a z~."""
    if alpha == 0:
        return list(z)
    if normalise == "none":
        return [a - alpha * b for a, b in zip(z, other, strict=True)]
    if normalise == "rescale":
        return [(a - alpha * b) / (1 - alpha) for a, b in zip(z, other, strict=True)]
    return [(1 + alpha) * a - alpha * b for a, b in zip(z, other, strict=True)]


def modulated(z_cd: Numbers, push: Numbers, top_k: int) -> list[float]:
    """z' = z_cd + push for the top_k largest of z_cd."""
    order = sorted(range(len(z_cd)), key=lambda i: -z_cd[i])[:top_k]
    return [z + (push[i] if i in order else 0.0) for i, z in enumerate(z_cd)]


def plausible(z: Numbers, beta: float) -> list[bool]:
    """z >= max z + log beta, which is p >= beta max p."""
    if beta == 0:
        return [True] * len(z)
    return [value >= max(z) + math.log(beta) for value in z]


def steered(
    z: Numbers,
    other: Numbers,
    push: Numbers,
    *,
    alpha: float,
    normalise: str,
    top_k: int,
    plausibility: float,
) -> list[float]:
    """Contrast, normalise, modulate, mask; what was raised stays."""
    z_cd = contrasted(z, other, alpha, normalise)
    after = modulated(z_cd, push, top_k)
    kept = plausible(z, plausibility)
    return [
        value if keep or value > before else -math.inf
        for value, before, keep in zip(after, z_cd, kept, strict=True)
    ]


def softmax(z: Numbers) -> list[float]:
    """Probabilities of logits."""
    exp = [math.exp(value - max(z)) for value in z]
    return [e / sum(exp) for e in exp]


def scaled_probabilities(z: Numbers, refusals: set[int], lambda_supp: float) -> list[float]:
    """The released code's suppression: p (1 - lambda / 2) on refusal tokens, renormalised."""
    p = [
        value * (1 - lambda_supp / 2) if i in refusals else value
        for i, value in enumerate(softmax(z))
    ]
    return [value / sum(p) for value in p]


def noised(pixels: np.ndarray, noise: np.ndarray, sigma: float) -> np.ndarray:
    """clip01(v + sigma n), back to bytes."""
    values = np.clip(pixels.astype(np.float32) / 255 + np.float32(sigma) * noise, 0, 1)
    return np.round(values * 255).astype(np.uint8)


def openings(lexicon: RefusalLexicon, vocabulary: Vocabulary) -> list[tuple[list[int], list[bool]]]:
    """Every spelling of every phrase as tokens, and for each token whether all is still open."""
    found = []
    for phrase in lexicon.phrases:
        for spelling in phrase.spellings():
            for lead in ("", " ", "\n"):
                ids = vocabulary.encode(lead + spelling.text)
                while ids and vocabulary.decode(ids[:1]).strip() == "":
                    ids = ids[1:]
                if not ids or set(ids) & vocabulary.special_ids:
                    continue
                texts = [vocabulary.decode(ids[: k + 1]).strip() for k in range(len(ids))]
                still = [len(text.rstrip("\ufffd")) < spelling.commits_at for text in texts]
                found.append(
                    (ids, [all(still[k : k + 1]) and all(still[:k]) for k in range(len(ids))])
                )
    return found


def shares(
    phrases: list[tuple[list[int], list[bool]]], so_far: list[int], root_weight: float
) -> dict[int, float]:
    """The next tokens of all phrases that begin with ``so_far``, and their shares of lambda."""
    k = len(so_far)
    following = [(ids, still) for ids, still in phrases if ids[:k] == so_far and len(ids) > k]
    parents = [still for ids, still in phrases if ids[:k] == so_far and k > 0]
    parent_open = any(still[k - 1] for still in parents)
    held = (1 - root_weight) * k if parent_open else 0.0
    result = {}
    for token in {ids[k] for ids, _ in following}:
        is_open = any(still[k] for ids, still in following if ids[k] == token)
        result[token] = root_weight if is_open else 1 + held
    return result


Model = Mapping[str, Mapping[str, float]]
"""A toy model: next-token probabilities by text so far; texts without an entry end."""


def next_token(model: Model, pushes: Model, text: str) -> dict[str, float]:
    """Next-token probabilities after pushes on the logits."""
    tokens = list(model[text])
    z = [math.log(model[text][token]) + pushes.get(text, {}).get(token, 0.0) for token in tokens]
    return dict(zip(tokens, softmax(z), strict=True))


def sequences(model: Model, pushes: Model, text: str = "") -> dict[str, float]:
    """Probabilities of all texts of a toy model after pushes on its logits."""
    if text not in model:
        return {text: 1.0}
    return {
        whole: p * q
        for token, p in next_token(model, pushes, text).items()
        for whole, q in sequences(model, pushes, text + token).items()
    }


def greedy(model: Model, pushes: Model) -> str:
    """The text that greedy decoding gives."""
    text = ""
    while text in model:
        following = next_token(model, pushes, text)
        text += max(following, key=lambda token: following[token])
    return text
