"""ECSO the obvious way: four questions, one after another, by full forward passes."""

from __future__ import annotations

from dataclasses import replace

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.steering.baselines.ecso import CAPTION, TELL, UNSEEING
from safecode_guard.turns.turn import TextPart, Turn, TurnMessage
from tests.reference.decode import naive_greedy


def naive_ecso(vlm: TransformersModel, turn: Turn, max_tokens: int) -> tuple[bool, list[int]]:
    """Return whether a turn of one message was answered unseeing, and the ids of the answer."""

    def say(asked: Turn, most: int) -> tuple[list[int], str]:
        ids = naive_greedy(vlm, asked, most)
        return ids, vlm.vocabulary.decode([i for i in ids if i not in vlm.vocabulary.eos_ids])

    first, text = say(turn, max_tokens)
    answered = (TurnMessage("assistant", (TextPart(text),)), TurnMessage("user", (TextPart(TELL),)))
    _, told = say(replace(turn, messages=(*turn.messages, *answered)), 8)
    if told.strip().lower().rstrip(".") == "no":
        return False, first
    pictures = [part for part in turn.messages[0].parts if not isinstance(part, TextPart)]
    asked = TextPart(CAPTION.format(query=turn.query))
    _, caption = say(replace(turn, messages=(TurnMessage("user", (*pictures, asked)),)), 96)
    words = TextPart(UNSEEING.format(caption=caption, query=turn.query))
    return True, say(Turn((TurnMessage("user", (words,)),)), max_tokens)[0]
