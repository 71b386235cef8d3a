"""The formulas of steering as one would write them on a blackboard: loops, no tricks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from safecode_guard.models.protocol import Vocabulary
from safecode_guard.steering.safecode.refusals import Phrase, RefusalLexicon

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


LEADS = ("", " ", "\n", *"\"“'‘«「*_(>:：")
"""What may stand directly before the first word of a refusal."""


@dataclass(frozen=True)
class Written:
    """One phrase in one spelling behind one lead."""

    ids: list[int]
    texts: list[str]
    """What is written up to each token, from the first letter on."""
    still: list[bool]
    """For each token whether all is still open."""
    word: str
    """The first word."""
    weak: bool

    def unfinished(self, k: int) -> bool:
        """Whether only a piece of the first word is written with token k."""
        return max(len(text) for text in self.texts[: k + 1]) < len(self.word)


@dataclass(frozen=True)
class Openings:
    """All phrases as tokens, what is spared, and the words of the vocabulary."""

    phrases: list[Written]
    spared: set[tuple[int, ...]]
    """What is spared, and every beginning of it."""
    known: Sequence[str]
    begun: dict[tuple[int, ...], list[Written]]
    """The phrases by their beginnings, so that nobody waits for the blackboard."""


def openings(lexicon: RefusalLexicon, vocabulary: Vocabulary) -> Openings:
    """Every spelling of every phrase, and of what is spared, behind every lead."""
    phrases = []
    for phrase in lexicon.phrases:
        for spelling in phrase.all_spellings():
            pattern = "[一-鿿㐀-䶿]|[^\\W\\d_一-鿿㐀-䶿]+"
            word = re.match(pattern, spelling.text)[0]  # type: ignore[index]
            for ids in behind_leads(spelling.text, vocabulary):
                texts = [letters_on(vocabulary.decode(ids[: k + 1])) for k in range(len(ids))]
                open_ = [len(text) < spelling.commits_at for text in texts]
                still = [all(open_[: k + 1]) for k in range(len(ids))]
                phrases.append(Written(list(ids), texts, still, word, spelling.weak))
    begun: dict[tuple[int, ...], list[Written]] = {}
    for written in phrases:
        for k in range(len(written.ids) + 1):
            begun.setdefault(tuple(written.ids[:k]), []).append(written)
    spared = {
        ids[:k]
        for opening in lexicon.spared
        for spelling in Phrase(opening).all_spellings()
        for ids in behind_leads(spelling.text, vocabulary)
        for k in range(1, len(ids) + 1)
    }
    return Openings(phrases, spared, vocabulary.known_words, begun)


def behind_leads(text: str, vocabulary: Vocabulary) -> set[tuple[int, ...]]:
    """The tokens of a text behind each lead, from the one on that has its first letter."""
    found = set()
    for lead in LEADS:
        ids = vocabulary.encode(lead + text)
        silent = [k for k in range(len(ids)) if nothing_said(vocabulary.decode(ids[:k]))]
        ids = ids[max(silent, default=0) :]
        if ids and not set(ids) & vocabulary.special_ids:
            found.add(tuple(ids))
    return found


def nothing_said(text: str) -> bool:
    """Whether a text is marks alone, and whole."""
    return "\ufffd" not in text and not any(c.isalnum() for c in text)


def letters_on(text: str) -> str:
    """A text from its first letter on, without a half character at its end."""
    text = text.strip().rstrip("\ufffd")
    while text and not text[0].isalnum():
        text = text[1:]
    return text


def pushed(found: Openings, so_far: list[int]) -> bool:
    """Whether a refusal is likely after a beginning of phrases: no piece of any word whatever."""
    k = len(so_far) - 1
    here = found.begun[tuple(so_far)]
    if not all(p.unfinished(k) for p in here):
        return True
    piece = here[0].texts[k]
    others = [word for word in found.known if word.startswith(piece) and word != piece]
    if len(piece) < 2 or not others:
        return len(piece) >= 2
    fitting = [w for w in others if any(w.startswith(p.word) or p.word.startswith(w) for p in here)]
    return len(fitting) >= len(others) / 2


def weight(found: Openings, so_far: list[int], root_weight: float) -> float | None:
    """The share of the last token of a beginning; None where no stem ends with it."""
    k = len(so_far) - 1
    here = found.begun[tuple(so_far)]
    spared = tuple(so_far) in found.spared
    if not spared and not any(p.still[k] for p in here):
        return None
    return min(root_weight, 0.5) if all(p.weak for p in here) else root_weight


def shares(found: Openings, so_far: list[int], root_weight: float) -> dict[int, float]:
    """The next tokens of all phrases that begin with ``so_far``, and their shares of lambda."""
    k = len(so_far)
    if tuple(so_far) not in found.begun:
        return {}
    prefixes = [so_far[: j + 1] for j in range(k)]
    held = 0.0
    if k and weight(found, so_far, root_weight) is not None:
        for prefix in prefixes:
            own = weight(found, prefix, root_weight)
            if pushed(found, prefix) and own is not None:
                held += 1 - own
    result = {}
    for token in {p.ids[k] for p in found.begun[tuple(so_far)] if len(p.ids) > k}:
        if pushed(found, [*so_far, token]):
            own = weight(found, [*so_far, token], root_weight)
            result[token] = 1 + held if own is None else own
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
