"""What a judge is shown: which pictures, and the whole instruction."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safecode_guard.turns.scene import FURTHEST, scene_of, scenes_of
from safecode_guard.turns.turn import ImagePart, TextPart, ToolCall, Turn, TurnMessage
from safecode_guard.verdict import SkippedMedia
from tests.families import checked, picture

LONG = "How do I run faster along this path?"
IMAGES = tuple(checked(picture(i, (6, 6)), 0) for i in range(12))


def user(text: str, *images: int) -> TurnMessage:
    return TurnMessage("user", (*(ImagePart(i) for i in images), TextPart(text)))


def said(text: str, *calls: ToolCall) -> TurnMessage:
    return TurnMessage("assistant", (TextPart(text),), calls)


def system(text: str) -> TurnMessage:
    return TurnMessage("system", (TextPart(text),))


def turn(*messages: TurnMessage, images: int = 1) -> Turn:
    return Turn(messages, IMAGES[:images])


def test_a_single_turn_is_its_own_scene() -> None:
    scene = scene_of(turn(user(LONG, 0)))
    assert (scene.instruction, scene.indices, scene.system) == (LONG, (0,), "")
    assert scene.turn.messages == (user(LONG, 0),)


def test_a_task_in_the_system_prompt_is_part_of_the_instruction() -> None:
    scene = scene_of(turn(system("Explain how to do it."), user("", 0)))
    assert scene.instruction == "Explain how to do it."
    assert [m.role for m in scene.turn.messages] == ["system", "user"]


@pytest.mark.parametrize("yes", ["Yes, please.", "ok", "do it now", "", "はい", "go on then, yes"])
def test_a_bare_confirmation_brings_what_it_confirms(yes: str) -> None:
    asked = turn(user(LONG, 0), said("Shall I tell you how?"), user(yes))
    expected = [LONG, "Shall I tell you how?", yes]
    assert scene_of(asked).request == "\n".join(filter(None, expected))


def test_what_was_asked_before_stands_before_it_without_the_answers() -> None:
    earlier = [f"What is thing number {i} in it?" for i in range(5)]
    exchanges = [m for text in earlier for m in (user(text), said("A path."))]
    asked = turn(user("Look.", 0), said("Yes."), *exchanges, user(LONG))
    assert scene_of(asked).request.split("\n") == [*earlier[-3:], LONG]
    assert scene_of(asked, requests=1).request == LONG
    assert scene_of(asked, requests=2).request.split("\n") == [earlier[-1], LONG]


def test_short_requests_reach_further_back_and_bring_what_they_answer() -> None:
    words = ["yes", "ok", "sure", "yes", "go"]
    exchanges = [m for word in words for m in (said(f"Offer before {word}."), user(word))]
    scene = scene_of(turn(user(LONG, 0), *exchanges), requests=1)
    assert scene.request.startswith(f"{LONG}\nOffer before yes.\nyes\n")
    assert scene.request.endswith("Offer before go.\ngo")


def test_there_is_an_end_to_how_far_short_requests_reach() -> None:
    exchanges = [m for _ in range(2 * FURTHEST) for m in (user("go"), said("Gone."))]
    scene = scene_of(turn(user(LONG, 0), said("Well."), *exchanges, user("go")))
    assert LONG not in scene.request
    assert scene.request.split("\n").count("go") == FURTHEST


def test_tool_calls_and_their_results_are_no_part_of_the_instruction() -> None:
    call = ToolCall("c1", "look", {"at": "sea"})
    result = TurnMessage("tool", (TextPart("a view"), ImagePart(1)), tool_call_id="c1")
    scene = scene_of(turn(user(LONG, 0), said("", call), result, images=2))
    assert scene.request == LONG
    assert scene.indices == (0, 1)


def test_the_newest_pictures_are_shown_and_the_earlier_ones_in_groups() -> None:
    scenes = scenes_of(turn(user(LONG, *range(11)), images=11), most=4)
    assert [scene.indices for scene in scenes] == [
        (7, 8, 9, 10), (0, 1, 2, 3), (4, 5, 6, 7),
    ]  # fmt: skip


def test_groups_stay_as_they_are_while_a_conversation_grows() -> None:
    before = {s.digest for s in scenes_of(turn(user(LONG, *range(9)), images=9))[1:]}
    after = {s.digest for s in scenes_of(turn(user(LONG, *range(10)), images=10))[1:]}
    assert len(before & after) == len(before) == 2


def test_groups_are_aligned_to_pictures_left_out_too() -> None:
    gone = tuple(
        SkippedMedia(message_index=0, block_index=i, kind="image", reason="r") for i in range(3)
    )
    left = replace(turn(user(LONG, *range(9)), images=9), left_out=gone)
    assert [s.indices for s in scenes_of(left)][1:] == [(0,), (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("together", [(0, 1, 2)]),
        ("each", [(2,), (1,), (0,)]),
        ("both", [(0, 1, 2), (2,), (1,), (0,)]),
    ],
)
def test_pictures_are_judged_together_each_or_both(shown, expected) -> None:
    scenes = scenes_of(turn(user(LONG, 0, 1, 2), images=3), shown=shown)
    assert [scene.indices for scene in scenes] == expected


@pytest.mark.parametrize("shown", ["together", "each", "both"])
def test_one_picture_or_none_is_one_scene(shown) -> None:
    for images in (0, 1):
        asked = turn(user(LONG, *range(images)), images=images)
        assert [s.indices for s in scenes_of(asked, shown=shown)] == [tuple(range(images))]


@settings(deadline=None)
@given(
    count=st.integers(0, 12),
    most=st.integers(1, 6),
    reach=st.none() | st.integers(0, 12),
    shown=st.sampled_from(["together", "each", "both"]),
    left_out=st.integers(0, 5),
)
def test_every_picture_in_reach_is_in_a_scene(count, most, reach, shown, left_out) -> None:
    gone = SkippedMedia(message_index=0, block_index=0, kind="image", reason="r")
    asked = replace(turn(user(LONG, *range(count)), images=count), left_out=(gone,) * left_out)
    scenes = scenes_of(asked, most=most, reach=reach, shown=shown)
    covered = {i for scene in scenes for i in scene.indices}
    assert covered >= set(range(max(0, count - (count if reach is None else reach)), count))
    assert all(len(scene.indices) <= most for scene in scenes)
    assert len({scene.indices for scene in scenes}) == len(scenes)


def test_the_digest_tells_apart_what_is_shown_and_nothing_else() -> None:
    base = turn(user(LONG, 0))
    answered = [
        turn(user("What is this thing here?", 0), said(text), user(LONG)) for text in ("A", "B")
    ]
    others = [
        turn(user(LONG + "!", 0)),
        turn(system("s"), user(LONG, 0)),
        Turn((user(LONG, 0),), (IMAGES[1],)),
        Turn((user(LONG, 0),), (replace(IMAGES[0], frame=1),)),
        turn(user(LONG), images=0),
        turn(user(LONG, 0, 1), images=2),
        answered[0],
    ]
    digests = [scene_of(one).digest for one in (base, *others)]
    assert len(set(digests)) == len(digests)
    assert scene_of(answered[1]).digest == digests[-1]
