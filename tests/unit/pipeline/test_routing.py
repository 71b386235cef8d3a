from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from PIL import Image

from safecode_guard.pipeline.routing import Route, route
from safecode_guard.policy import Policy
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.turn import Turn

PICTURE = {"type": "image", "image": Image.new("RGB", (4, 4), "teal")}
AUDIO = {"type": "audio", "base64": "AAAA"}


def shown(text: str = "What is this?") -> HumanMessage:
    return HumanMessage([PICTURE, {"type": "text", "text": text}])


def policy(history: int | None = None, when: str = "images") -> Policy:
    stages = {"input": {"when": when}}
    return Policy.load({"routing": {"history_images": history}, "stages": stages})


def read(*messages: BaseMessage) -> Turn:
    return read_turn(messages)


def test_text_passes_or_is_judged_as_the_policy_says() -> None:
    turn = read(HumanMessage("Hello"), AIMessage("Hi"), HumanMessage("How are you?"))
    assert route(turn, policy()).kind == "pass"
    assert route(turn, policy(when="always")).kind == "judge"


def test_an_image_is_judged() -> None:
    assert route(read(shown()), policy()).kind == "judge"
    assert route(read(shown()), policy(history=0)).kind == "judge"


def test_a_follow_up_in_words_is_judged() -> None:
    turn = read(shown(), AIMessage("A pier."), HumanMessage("How do I jump off it?"))
    found = route(turn, policy())
    assert found.kind == "judge"
    assert "history" in found.reason


def test_history_reaches_as_far_as_the_policy_says() -> None:
    turn = read(
        shown(), AIMessage("A pier."), HumanMessage("Thanks"), AIMessage("!"), HumanMessage("And?")
    )
    kinds = [route(turn, policy(history=n)).kind for n in range(6)]
    assert kinds == ["pass", "pass", "pass", "pass", "judge", "judge"]
    assert route(turn, policy(history=0, when="always")).kind == "judge"


def test_tool_calls_do_not_move_the_image_into_the_past() -> None:
    call = AIMessage("", tool_calls=[{"id": "1", "name": "look", "args": {}}])
    turn = read(shown(), HumanMessage("Look closer."), call, ToolMessage("done", tool_call_id="1"))
    assert route(turn, policy(history=0)).kind == "judge"


def test_images_of_tools_and_answers_count() -> None:
    call = AIMessage("", tool_calls=[{"id": "1", "name": "shot", "args": {}}])
    screenshot = ToolMessage([PICTURE], tool_call_id="1")
    assert route(read(HumanMessage("Look."), call, screenshot), policy(history=0)).kind == "judge"
    drawn = AIMessage([PICTURE], response_metadata={"model_provider": "anthropic"})
    turn = read(HumanMessage("Draw."), drawn, HumanMessage("How do I climb that?"))
    assert route(turn, policy(history=1)).kind == "judge"
    assert route(turn, policy(history=0)).kind == "pass"


@pytest.mark.parametrize("when", ["images", "always"])
def test_media_that_cannot_be_judged_are_refused_wherever_they_are(when: str) -> None:
    hidden = HumanMessage([AUDIO])
    for turn in (
        read(hidden),
        read(hidden, AIMessage("?"), HumanMessage("Hello")),
        read(shown(), hidden),
        read(HumanMessage("x"), ToolMessage([AUDIO], tool_call_id="1")),
    ):
        found = route(turn, policy(history=0, when=when))
        assert found.kind == "refuse"
        assert "audio" in found.reason


@given(
    st.lists(st.sampled_from(["text", "image", "answer", "tool"]), min_size=1, max_size=8),
    st.none() | st.integers(0, 9),
)
def test_no_turn_with_a_fresh_image_passes(kinds: list[str], history: int | None) -> None:
    make = {
        "text": HumanMessage("words"),
        "image": shown(),
        "answer": AIMessage("words"),
        "tool": ToolMessage("words", tool_call_id="1"),
    }
    turn = read(*(make[kind] for kind in kinds))
    found = route(turn, policy(history=history)).kind
    if "image" not in kinds:
        assert found == "pass"
    elif history is None or history >= len(kinds) or kinds[-1] == "image":
        assert found == "judge"


def test_a_picture_in_an_artifact_is_judged() -> None:
    look = [{"name": "look", "args": {}, "id": "c1"}]
    shown = ToolMessage("a view", tool_call_id="c1", artifact=[PICTURE])
    assert route(read(HumanMessage("Look."), AIMessage("", tool_calls=look), shown), Policy()) == (
        Route("judge", "image in this turn")
    )
