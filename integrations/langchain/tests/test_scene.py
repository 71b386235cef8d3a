"""The scene: short, the same at every step, and handed on to whom it concerns."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from safecode_guard_langchain.rails import placed
from safecode_guard_langchain.scene import in_short, request_of, scenes, within_scene
from safecode_guard_langchain.sight import Sight
from support import picture

from safecode_guard.pipeline.examiner import Subject
from safecode_guard.turns.pictures import PictureStore
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.scene import scene_of

SIGHT = Sight(PictureStore(64_000_000))
COLOURS = ["navy", "olive", "teal", "crimson", "gold"]

shown = st.lists(st.sampled_from(COLOURS).map(picture), max_size=2)
words = st.sampled_from(["Go.", "yes, please", "Switch the old stove on for me, will you?", "ok"])


def user(colours: list[Any], text: str) -> BaseMessage:
    return HumanMessage([*colours, {"type": "text", "text": text}])


messages = st.lists(
    st.one_of(
        st.builds(user, shown, words),
        words.map(HumanMessage),
        words.map(AIMessage),
        st.builds(lambda c: ToolMessage(c or "done", tool_call_id="1"), shown),
        words.map(SystemMessage),
    ),
    min_size=1,
    max_size=12,
)


@given(messages, st.integers(1, 4))
def test_a_conversation_in_short_makes_the_same_scene(given: list[Any], most: int) -> None:
    whole = scene_of(read_turn(given), most=most)
    short = in_short(given, SIGHT, most=most)
    if not short.messages:
        assert not whole.images
        assert not whole.request
        return
    made = scene_of(read_turn(short.messages), most=most)
    assert made.digest == whole.digest


@given(messages)
def test_the_request_is_the_scenes(given: list[Any]) -> None:
    assert request_of(given) == scene_of(read_turn(given)).request


@given(messages)
def test_pictures_keep_their_places(given: list[Any]) -> None:
    short = in_short(given, SIGHT, most=4)
    if short.messages:
        turn = read_turn(short.messages)
        moved = placed(Subject("tool_call", turn), short.places).turn
        places = [i.message_index for i in scene_of(moved).images]
        assert places == [i.message_index for i in scene_of(read_turn(given)).images]


def long_run(steps: int) -> list[BaseMessage]:
    history: list[BaseMessage] = [HumanMessage("Click through all of the pages, please.")]
    for step in range(steps):
        history += [
            AIMessage("I click.", tool_calls=[{"name": "click", "args": {}, "id": str(step)}]),
            ToolMessage([picture(COLOURS[step % 5])], tool_call_id=str(step)),
        ]
    return history


def test_a_long_run_is_as_short_as_a_brief_one() -> None:
    def kept(steps: int) -> int:
        return len(in_short(long_run(steps), SIGHT, most=4).messages)

    assert kept(500) == kept(20) == 5


def test_the_calls_that_an_answer_makes_are_no_part_of_a_scene() -> None:
    odd = AIMessage("Fine.", tool_calls=[{"name": "x", "args": {"y": object()}, "id": "1"}])
    short = in_short([HumanMessage("Go."), odd, HumanMessage("yes")], SIGHT, most=4)
    assert all(not getattr(message, "tool_calls", None) for message in short.messages)


def test_callers_are_handed_on_and_forgotten() -> None:
    own, caller = [HumanMessage("Do it.")], [user([picture("navy")], "Cook.")]
    assert scenes(own, SIGHT) == [own]
    with within_scene(caller):
        assert scenes(own, SIGHT) == [[*caller, *own], caller]
        with within_scene(own):
            assert scenes(own, SIGHT)[1:] == [own, caller]
    assert scenes(own, SIGHT) == [own]


def test_with_a_picture_of_its_own_a_conversation_stands_by_itself() -> None:
    own, caller = [user([picture("olive")], "Do it.")], [user([picture("navy")], "Cook.")]
    with within_scene(caller):
        assert scenes(own, SIGHT) == [own, caller]


def test_callers_belong_to_a_thread_and_a_task() -> None:
    own, caller = [HumanMessage("Do it.")], [user([picture("navy")], "Cook.")]
    with within_scene(caller), ThreadPoolExecutor(1) as pool:
        assert pool.submit(scenes, own, SIGHT).result() == [own]

    async def inside() -> int:
        with within_scene(caller):
            await asyncio.sleep(0.01)
            return len(scenes(own, SIGHT))

    async def beside() -> int:
        await asyncio.sleep(0.005)
        return len(scenes(own, SIGHT))

    async def both() -> list[int]:
        return await asyncio.gather(inside(), beside())

    assert asyncio.run(both()) == [2, 1]
