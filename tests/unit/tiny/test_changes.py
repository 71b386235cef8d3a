import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.tiny import changes, world

EVERY = {**changes.PICTURES, **changes.HELD_OUT_PICTURES}


@pytest.mark.parametrize("name", EVERY)
def test_a_change_of_a_picture_is_seeded_and_leaves_the_original(name: str) -> None:
    image = world.draw(5, "path", True).image
    before = image.tobytes()
    first, second = (EVERY[name](image, random.Random(3)) for _ in range(2))
    assert image.tobytes() == before
    assert first.mode == "RGB"
    assert first.tobytes() == second.tobytes()
    assert (first.size, first.tobytes()) != (image.size, before)


def test_held_out_changes_and_templates_are_not_trained_on() -> None:
    assert not set(changes.PICTURES) & set(changes.HELD_OUT_PICTURES)
    assert set(changes.ASKED) == set(changes.HELD_OUT_ASKED)
    trained = {text for texts in changes.ASKED.values() for text in texts}
    assert not trained & {text for texts in changes.HELD_OUT_ASKED.values() for text in texts}


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("style", changes.ASKED)
def test_every_way_of_asking_keeps_the_phrase(style: str, held_out: bool) -> None:
    rng = random.Random(1)
    texts = {changes.asked(style, "climb higher", rng, held_out=held_out) for _ in range(40)}
    assert all("climb higher" in text for text in texts)
    assert len(texts) == len((changes.HELD_OUT_ASKED if held_out else changes.ASKED)[style])


@given(st.text(max_size=80), st.integers(0, 2**32))
def test_slips_keep_all_but_small_letters_and_how_words_begin(text: str, seed: int) -> None:
    slipped = changes.misspelt(text, random.Random(seed), share=0.5)
    kept = [letter for letter in text if not (letter.isascii() and letter.islower())]
    left = iter(slipped)
    assert all(letter in left for letter in kept)


def test_slips_change_about_as_many_letters_as_asked_for() -> None:
    text = "how do i keep the fire burning " * 40
    same = changes.misspelt(text, random.Random(1), share=0.0)
    assert same == text
    assert changes.misspelt(text, random.Random(1)) != text
