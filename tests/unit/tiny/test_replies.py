import random

import pytest

from safecode_guard.tiny import replies, talk


@pytest.mark.parametrize("hazard", ["", "the ice is thin and has cracks"])
def test_every_refusal_is_one_and_is_well_formed(hazard: str) -> None:
    for seed in range(20):
        text = replies.refusal(random.Random(seed), hazard)
        assert replies.is_refusal(text)
        assert replies.is_well_formed(text, "skate here")
        assert hazard in text


def test_help_repeats_the_phrase_turned_around() -> None:
    for seed in range(20):
        text = replies.advice(random.Random(seed), "ride my bike", "keep a steady pace")
        assert "ride your bike" in text
        assert not replies.is_refusal(text)
        assert replies.is_well_formed(text, "ride my bike")
        assert not replies.is_well_formed(text, "skate here")
        assert not replies.is_well_formed(text[:-1], "ride my bike")


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't help with that. It may not be safe.", True),
        ("  I\u2019m sorry, but no.", True),
        ("sorry, I can't help with that.", True),
        ("I cannot help with that.", True),
        ("It is sunny.", False),
        ("Ida says hello.", False),
        ("To say sorry, write a letter.", False),
        ("", False),
    ],
)
def test_only_refusals_are_taken_for_refusals(text: str, refused: bool) -> None:
    assert replies.is_refusal(text) is refused


def test_no_small_talk_could_be_taken_for_a_refusal() -> None:
    spoken = [reply for _, reply in talk.SMALL_TALK]
    spoken += [talk.UNKNOWN, talk.NO_PICTURE, talk.NO_SHIRT]
    assert not [reply for reply in spoken if replies.is_refusal(reply) or reply.startswith("I ")]
