"""How many pictures are loaded, which ones, and until when."""

from __future__ import annotations

import base64
import io
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from PIL import Image

from safecode_guard.errors import FetchFailed, ImageTooLarge, TurnTimeout, UnreadableImage
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns import images
from safecode_guard.turns.reading import LEFT_OUT, read_turn
from safecode_guard.turns.turn import ImagePart, TextPart

Block = dict[str, Any]

REFUSE = ImagePolicy(max_images=2, overflow="refuse")
TEXT = {"type": "text", "text": "words"}


def block(colour: Any = "teal") -> Block:
    file = io.BytesIO()
    Image.new("RGB", (5, 4), colour).save(file, "PNG")
    return {"type": "image", "base64": base64.b64encode(file.getvalue()).decode()}


def animation(count: int) -> Block:
    file = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), (20 * i, 0, 0)) for i in range(count)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return {"type": "image", "image": file.getvalue()}


def link(name: str) -> Block:
    return {"type": "image", "url": f"https://e.org/{name}"}


BROKEN = {"type": "image", "base64": "AAAA"}


def conversation(*colours: Any) -> list[BaseMessage]:
    return [HumanMessage([block(colour), TEXT]) for colour in colours]


# -- the oldest are left out ----------------------------------------------------------------------


def test_the_newest_pictures_are_kept() -> None:
    turn = read_turn(conversation(*[(i, 0, 0) for i in range(5)]), ImagePolicy(max_images=2))
    assert [image.pixels.getpixel((0, 0))[0] for image in turn.images] == [3, 4]
    assert [image.message_index for image in turn.images] == [3, 4]
    assert not turn.skipped
    assert [message.parts for message in turn.messages] == [
        *[(TextPart(LEFT_OUT), TextPart("words"))] * 3,
        (ImagePart(0), TextPart("words")),
        (ImagePart(1), TextPart("words")),
    ]


def test_each_picture_that_is_left_out_is_listed_with_the_limit() -> None:
    turn = read_turn(conversation("red", "green", "blue"), ImagePolicy(max_images=1), strict=True)
    assert [(s.message_index, s.block_index, s.kind) for s in turn.left_out] == [
        (0, 0, "image"),
        (1, 0, "image"),
    ]
    assert all("images.max_images" in media.reason for media in turn.left_out)
    assert turn.left_out_images == 2


def test_what_is_left_out_is_neither_decoded_nor_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = ImagePolicy(max_images=2, allow_urls=True, url_hosts=("e.org",))
    decoded: list[bytes] = []
    real = images.decode_file

    def counting(data: bytes, *args: Any, **options: Any) -> Any:
        decoded.append(data)
        return real(data, *args, **options)

    def never(url: str, given: ImagePolicy) -> bytes:
        raise AssertionError("fetched")

    monkeypatch.setattr(images, "decode_file", counting)
    messages = [HumanMessage([link("old"), BROKEN]), *conversation("red", "green", "blue")]
    turn = read_turn(messages, policy, fetch=never)
    assert len(decoded) == 2
    assert (len(turn.images), len(turn.left_out), len(turn.skipped)) == (2, 3, 0)


def test_failures_count_so_that_dead_links_do_not_cost_a_timeout_each() -> None:
    policy = ImagePolicy(max_images=3, allow_urls=True, url_hosts=("e.org",))
    asked: list[str] = []

    def dead(url: str, given: ImagePolicy) -> bytes:
        asked.append(url)
        raise FetchFailed("gone")

    messages = [HumanMessage([link(str(i)) for i in range(10)])]
    turn = read_turn(messages, policy, fetch=dead)
    assert asked == [f"https://e.org/{i}" for i in (9, 8, 7)]
    assert (len(turn.skipped), len(turn.left_out)) == (3, 7)


def test_a_dead_link_is_tried_once_however_often_it_is_named() -> None:
    policy = ImagePolicy(allow_urls=True, url_hosts=("e.org",))
    asked: list[str] = []

    def dead(url: str, given: ImagePolicy) -> bytes:
        asked.append(url)
        raise FetchFailed("gone")

    turn = read_turn([HumanMessage([link("a")] * 4)], policy, fetch=dead)
    assert len(asked) == 1
    assert len(turn.skipped) == 4
    assert [media.block_index for media in turn.skipped] == [0, 1, 2, 3]


def test_what_cannot_be_read_within_reach_refuses_the_turn_and_beyond_it_does_not() -> None:
    policy = ImagePolicy(max_images=2)
    near = read_turn([HumanMessage([block(), BROKEN])], policy)
    assert (len(near.images), len(near.skipped), len(near.left_out)) == (1, 1, 0)
    far = read_turn([HumanMessage([BROKEN, block("red"), block()])], policy)
    assert (len(far.images), len(far.skipped), len(far.left_out)) == (2, 0, 1)


def test_all_frames_of_an_animation_are_taken_or_none() -> None:
    policy = ImagePolicy(max_images=5, max_frames=4)
    turn = read_turn([HumanMessage([animation(4), block(), block("red")])], policy)
    assert (len(turn.images), len(turn.left_out)) == (2, 1)
    turn = read_turn([HumanMessage([block(), animation(4), block("red")])], policy)
    assert [image.frame for image in turn.images] == [0, 1, 2, 3, 0]
    assert turn.messages[0].image_indices == (0, 1, 2, 3, 4)


def test_nothing_older_is_shown_in_the_place_of_an_animation_that_does_not_fit() -> None:
    policy = ImagePolicy(max_images=4, max_frames=4)
    turn = read_turn([HumanMessage([block(), animation(4), block("red")])], policy)
    assert [image.block_index for image in turn.images] == [2]
    assert len(turn.left_out) == 2


def test_one_animation_always_fits() -> None:
    turn = read_turn([HumanMessage([animation(6)])], ImagePolicy(max_images=2, max_frames=5))
    assert [image.pixels.getpixel((0, 0))[0] for image in turn.images] == [0, 100]


def test_artifacts_that_are_left_out_leave_no_words_in_the_conversation() -> None:
    shot = base64.b64decode(block()["base64"])
    tool = ToolMessage("taken", tool_call_id="1", artifact=shot)
    turn = read_turn([tool, HumanMessage([block("red")])], ImagePolicy(max_images=1))
    assert turn.messages[0].parts == (TextPart("taken"),)
    assert (turn.messages[0].unshown, len(turn.left_out)) == ((), 1)


@given(
    st.lists(st.sampled_from(["image", "broken", "text", "animation"]), max_size=12),
    st.integers(1, 6),
)
@settings(max_examples=80, deadline=None)
def test_every_medium_is_shown_listed_or_left_out(kinds: list[str], most: int) -> None:
    blocks = {"image": block(), "broken": BROKEN, "text": TEXT, "animation": animation(2)}
    turn = read_turn([HumanMessage([blocks[kind] for kind in kinds])], ImagePolicy(max_images=most))
    shown = {image.block_index for image in turn.images}
    skipped = {media.block_index for media in turn.skipped}
    left_out = {media.block_index for media in turn.left_out}
    media = {i for i, kind in enumerate(kinds) if kind != "text"}
    assert shown | skipped | left_out == media
    assert len(shown) + len(skipped) + len(left_out) == len(media)
    assert len(turn.images) <= most
    assert len(shown) + len(skipped) <= most
    assert not left_out or max(left_out) < min(shown | skipped)  # only the oldest
    assert turn.messages[0].image_indices == tuple(range(len(turn.images)))


# -- or the turn is refused -----------------------------------------------------------------------


def test_with_refuse_the_rest_is_skipped_in_the_order_of_the_conversation() -> None:
    messages = [HumanMessage([block(), block()]), HumanMessage([block(), TEXT, block()])]
    turn = read_turn(messages, REFUSE)
    assert len(turn.images) == 2
    assert [(s.message_index, s.block_index) for s in turn.skipped] == [(1, 0), (1, 2)]
    assert all("more than 2 images" in s.reason for s in turn.skipped)
    assert turn.messages[1].text == "words"
    assert not turn.left_out
    with pytest.raises(ImageTooLarge):
        read_turn(messages, REFUSE, strict=True)


def test_with_refuse_an_animation_that_does_not_fit_is_skipped() -> None:
    policy = ImagePolicy(max_images=4, overflow="refuse")
    turn = read_turn([HumanMessage([block(), animation(4)])], policy)
    assert (len(turn.images), len(turn.skipped)) == (1, 1)


def test_strict_raises_for_the_first_in_the_conversation_though_the_newest_is_loaded_first() -> (
    None
):
    with pytest.raises(UnreadableImage, match="message 0, block 0"):
        read_turn([HumanMessage([BROKEN]), AIMessage("x"), HumanMessage([BROKEN])], strict=True)


# -- the deadline ---------------------------------------------------------------------------------


def test_a_deadline_that_has_passed_ends_the_reading() -> None:
    with pytest.raises(TurnTimeout, match="deadline") as caught:
        read_turn(conversation("red"), deadline=time.monotonic() - 1)
    assert caught.value.hint
    assert read_turn([HumanMessage("words")], deadline=time.monotonic() - 1).query == "words"
    assert read_turn(conversation("red"), deadline=time.monotonic() + 60).images


def test_the_time_is_looked_at_before_each_picture() -> None:
    policy = ImagePolicy(allow_urls=True, url_hosts=("e.org",))
    asked: list[str] = []

    def slow(url: str, given: ImagePolicy) -> bytes:
        asked.append(url)
        time.sleep(0.06)
        return base64.b64decode(block()["base64"])

    messages = [HumanMessage([link(str(i)) for i in range(20)])]
    with pytest.raises(TurnTimeout):
        read_turn(messages, policy, fetch=slow, deadline=time.monotonic() + 0.1)
    assert len(asked) <= 3


def test_a_fetch_that_the_deadline_cut_short_is_a_timeout_and_no_dead_link() -> None:
    policy = ImagePolicy(allow_urls=True, url_hosts=("e.org",))

    def slow(url: str, given: ImagePolicy) -> bytes:
        assert given.url_timeout_s <= 0.05
        time.sleep(given.url_timeout_s + 0.01)
        raise FetchFailed("The host did not answer in time.")

    with pytest.raises(TurnTimeout):
        read_turn([HumanMessage([link("a")])], policy, fetch=slow, deadline=time.monotonic() + 0.05)
