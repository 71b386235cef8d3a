"""The risk of a turn: what the model says of its pictures, and how near it then is to refusing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safecode_guard.errors import ModelError
from safecode_guard.models.probing import Probe, Probed
from safecode_guard.risk.prompts import CONTEXT_TOKENS, cautious_request, context_question
from safecode_guard.risk.prototypes import TOKENS, Prototypes
from safecode_guard.turns.turn import Turn

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Risk:
    """What was found of one turn."""

    context: str
    """What the model says of the pictures; content."""
    similarity: float
    """s, the cosine of its first tokens' probabilities and the prototypes'."""
    certainty: float
    """c = sigmoid(k (s - s0)): how surely the request is to be refused."""


def risks(probe: Probe, turns: Sequence[Turn], prototypes: Prototypes) -> list[Risk]:
    """Return the risk of each turn; two questions to the model, one where there is no picture.

    Raises:
        ModelError: If the model cannot be asked, or its logits are not the prototypes' kind.
    """
    contexts = visual_contexts(probe, turns)
    asked = cautiously(probe, turns, contexts)
    return [
        _risk(context, answer, prototypes) for context, answer in zip(contexts, asked, strict=True)
    ]


def visual_contexts(probe: Probe, turns: Sequence[Turn]) -> list[str]:
    """Return a sentence on the safety-relevant content of each turn's pictures; none without."""
    seen = [i for i, turn in enumerate(turns) if turn.images]
    questions = [context_question(turns[i]) for i in seen]
    answers = probe(questions, max_tokens=CONTEXT_TOKENS) if questions else []
    texts = {i: answer.text.strip() for i, answer in zip(seen, answers, strict=True)}
    return [texts.get(i, "") for i in range(len(turns))]


def cautiously(probe: Probe, turns: Sequence[Turn], contexts: Sequence[str]) -> list[Probed]:
    """Return the first tokens of the answers to q', with the logits that they were chosen from."""
    asked = [cautious_request(turn, text) for turn, text in zip(turns, contexts, strict=True)]
    return probe(asked, max_tokens=TOKENS, first_logits=TOKENS)


def first_logits(answer: Probed) -> Tensor:
    """Return the logits [tokens, vocabulary] that an answer was chosen from.

    Raises:
        ModelError: If there are none.
    """
    if answer.logits is None:
        raise ModelError(
            "The model answered without the logits that were asked for.",
            hint="RAS needs a model in this process: guard a ChatTransformers.",
        )
    return answer.logits.cpu()


def _risk(context: str, answer: Probed, prototypes: Prototypes) -> Risk:
    # behind a door: it loads torch, and judges are imported without
    from safecode_guard.risk.arithmetic import certainty, similarity

    logits, fitted = first_logits(answer), prototypes.fitted
    if logits.shape[-1] != prototypes.logits.shape[-1] or bool(logits.isnan().any()):
        raise ModelError(
            f"The model's logits, {tuple(logits.shape)} wide, are not the prototypes' kind.",
            hint="Make the prototypes with this model: `safecode-guard ras fit`.",
        )
    s = similarity(logits, prototypes.logits, gamma=fitted.gamma)
    return Risk(context, s, certainty(s, s0=fitted.s0, k=fitted.k))
