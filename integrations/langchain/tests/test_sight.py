"""Which media a message holds, and whether what a model is given is what was looked at."""

from __future__ import annotations

import base64
import gc
from typing import Any

import pytest
from langchain_core.language_models.chat_models import _format_for_tracing
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, ToolMessage
from PIL import Image
from safecode_guard_langchain.sight import REFUSED, Sight
from support import picture, png

from safecode_guard.turns.pictures import PictureStore


@pytest.fixture
def sight() -> Sight:
    return Sight(PictureStore(0))


def test_the_same_bytes_have_the_same_mark_in_every_form(sight: Sight) -> None:
    url = f"data:image/png;base64,{png('navy')}"
    forms: list[Any] = [
        picture("navy"),
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "input_image", "image_url": url},
        {"type": "media", "mime_type": "image/png", "data": png("navy")},
    ]
    marks = [sight.media(HumanMessage([form])) for form in forms]
    in_text = sight.media(ToolMessage(f"here: {url}", tool_call_id="1"))
    assert len({*marks, in_text}) == 1
    assert sight.media(HumanMessage([picture("olive")])) not in marks


def test_text_holds_nothing_but_what_a_tool_wrote(sight: Sight) -> None:
    assert sight.media(HumanMessage(f"data:image/png;base64,{png('navy')}")) == frozenset()
    assert sight.media(HumanMessage([{"type": "text", "text": "hi"}])) == frozenset()
    assert sight.media(AIMessage("hi")) == frozenset()


def test_artifacts_pixels_and_bytes_count(sight: Sight) -> None:
    raw = base64.b64decode(png("navy"))
    assert sight.media(ToolMessage("a", artifact={"x": raw}, tool_call_id="1"))
    assert sight.media(ToolMessage("a", artifact=[Image.new("RGB", (4, 4))], tool_call_id="1"))
    assert sight.media(HumanMessage([{"image": {"source": {"bytes": raw}}}]))


def test_what_no_judge_can_look_at_is_marked_as_such(sight: Sight) -> None:
    sound = HumanMessage([{"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}])
    [mark] = sight.media(sound)
    assert mark.startswith(REFUSED)
    [odd] = sight.media(ChatMessage([picture("navy")], role="oracle"))
    assert odd.startswith(REFUSED)


def test_a_message_is_looked_through_once_and_again_when_it_has_changed(
    sight: Sight, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Any] = []
    look = sight._look
    monkeypatch.setattr(sight, "_look", lambda m: looked.append(m) or look(m))
    message = HumanMessage([picture("navy"), {"type": "text", "text": "a"}])
    first = sight.media(message)
    assert sight.media(message) == first
    assert len(looked) == 1
    message.content[0]["base64"] = png("olive")
    assert sight.media(message) != first
    message.content = [picture("teal")]
    assert sight.media(message) != first
    assert len(looked) == 3


def test_nothing_is_kept_of_messages_that_are_gone(sight: Sight) -> None:
    for _ in range(50):
        sight.media(HumanMessage([picture("navy")]))
    gc.collect()
    assert sight._seen == {}


MESSAGES = [
    HumanMessage([picture("navy"), {"type": "text", "text": "a"}], id="1"),
    HumanMessage([{"type": "image_url", "image_url": {"url": "https://a.example/x.png"}}], id="2"),
    HumanMessage(
        [{"type": "file", "mime_type": "image/png", "base64": png("teal")}, "text"], id="3"
    ),
    AIMessage("hello", id="4"),
    ToolMessage([{"image": {"source": {"bytes": b"1234"}}}], tool_call_id="1", id="5"),
]


def kept(sight: Sight, *messages: BaseMessage) -> list[Any]:
    return [look.kept for look in sight.look_at(messages)]


def test_what_callbacks_are_told_is_recognised(sight: Sight) -> None:
    assert sight.shows_the_same(_format_for_tracing(MESSAGES), kept(sight, *MESSAGES))


@pytest.mark.parametrize(
    "content",
    [
        [picture("olive"), {"type": "text", "text": "a"}],
        [picture("navy"), picture("olive")],
        [picture("navy"), {"type": "text", "text": "a"}, picture("olive")],
        [picture("navy"), {"type": "image_url", "image_url": {"url": "https://b.example"}}],
        [{"type": "image", "url": "https://b.example"}, {"type": "text", "text": "a"}],
        "a",
    ],
)
def test_what_has_changed_is_looked_at(content: Any, sight: Sight) -> None:
    changed, known = [HumanMessage(content, id="1"), *MESSAGES[1:]], kept(sight, *MESSAGES)
    assert not sight.shows_the_same(_format_for_tracing(changed), known)
    assert not sight.shows_the_same([*MESSAGES, HumanMessage("more")], known)
    assert not sight.shows_the_same(MESSAGES[1:], known)
    assert not sight.shows_the_same(MESSAGES[::-1], known)


@pytest.mark.parametrize("place", range(0, len(png("navy")), 7))
def test_not_a_single_letter_differs_unnoticed(place: int, sight: Sight) -> None:
    data = png("navy")
    other = data[:place] + ("A" if data[place] != "A" else "B") + data[place + 1 :]
    block = picture("navy")
    for one, two in ((block, {**block, "base64": other}), (as_url(data), as_url(other))):
        known = kept(sight, HumanMessage([one]))
        assert sight.shows_the_same(_format_for_tracing([HumanMessage([dict(one)])]), known)
        assert not sight.shows_the_same(_format_for_tracing([HumanMessage([two])]), known)


def as_url(data: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def test_names_of_keys_and_types_count(sight: Sight) -> None:
    url = as_url(png("navy"))["image_url"]["url"]
    known = kept(sight, HumanMessage([{"type": "text", "text": url}]))
    for block in (as_url(png("navy")), {"type": "text", "image": url}):
        assert not sight.shows_the_same(_format_for_tracing([HumanMessage([block])]), known)


def test_what_is_kept_is_what_was_there_and_not_the_list(sight: Sight) -> None:
    message = HumanMessage([{"type": "text", "text": "a"}])
    known = kept(sight, message)
    message.content.append(picture("navy"))
    assert not sight.shows_the_same([message], known)
    pixels = HumanMessage([{"type": "image", "image": Image.new("RGB", (4, 4))}])
    assert not sight.shows_the_same([pixels], kept(sight, pixels))  # they can change unseen


def test_a_nested_change_is_noticed(sight: Sight) -> None:
    message = HumanMessage([as_url(png("navy"))])
    first = sight.media(message)
    message.content[0]["image_url"]["url"] = as_url(png("olive"))["image_url"]["url"]
    assert sight.media(message) != first


# -- conversations that grow ----------------------------------------------------------------------


def conversation(steps: int = 6) -> list[BaseMessage]:
    found: list[BaseMessage] = [HumanMessage("Do it.")]
    for step in range(steps):
        found.append(AIMessage("", additional_kwargs={"note": [step]}))
        artifact = {"x": step}
        found.append(ToolMessage([as_url(png("navy"))], artifact=artifact, tool_call_id=f"{step}"))
    return found


def test_what_began_a_conversation_is_not_looked_at_again(
    sight: Sight, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[BaseMessage] = []
    look = sight.look
    monkeypatch.setattr(sight, "look", lambda m: looked.append(m) or look(m))
    messages = conversation()
    first = sight.look_at(messages[:7])
    assert sight.look_at(messages)[:7] == first
    assert looked == messages
    assert sight.look_at(messages) == [look(message) for message in messages]
    assert len(looked) == len(messages)


def _another_picture(message: BaseMessage) -> None:
    message.content[0]["image_url"]["url"] = as_url(png("olive"))["image_url"]["url"]  # type: ignore[index]


def _more(message: BaseMessage) -> None:
    assert isinstance(message.content, list)
    message.content.append(picture("olive"))


def _another_content(message: BaseMessage) -> None:
    message.content = [picture("olive")]


def _another_artifact(message: BaseMessage) -> None:
    assert isinstance(message, ToolMessage)
    message.artifact = {"x": base64.b64decode(png("olive"))}


@pytest.mark.parametrize("change", [_another_picture, _more, _another_content, _another_artifact])
@pytest.mark.parametrize("place", [2, 6, -1])
def test_a_change_anywhere_in_a_conversation_is_seen(change: Any, place: int, sight: Sight) -> None:
    messages = conversation()
    before = sight.look_at(messages)
    change(messages[place])
    after = sight.look_at(messages)
    assert after == Sight(PictureStore(0)).look_at(messages)
    assert after[place].marks != before[place].marks
    assert sight.look_at(messages) == after


def test_words_that_have_changed_are_seen(sight: Sight) -> None:
    messages = conversation()
    sight.look_at(messages)
    messages[0].content = [picture("olive")]
    assert sight.look_at(messages)[0].marks
    messages[0].content = "Do it not."
    assert sight.look_at(messages)[0].kept.content == "Do it not."


def test_other_messages_in_the_same_places_are_looked_at(sight: Sight) -> None:
    messages, fresh = conversation(), Sight(PictureStore(0))
    sight.look_at(messages)
    other = ToolMessage([picture("olive")], tool_call_id="1")
    for changed in (
        [*messages[:2], other, *messages[3:]],
        [*messages[:4], *messages[6:]],
        messages[:5],
        [messages[0], other],
        messages[::-1],
    ):
        assert sight.look_at(changed) == fresh.look_at(changed)
    assert sight.look_at([]) == []


def test_no_conversation_is_kept_that_is_gone(sight: Sight) -> None:
    for _ in range(5):
        sight.look_at(conversation())
    gc.collect()
    assert sight._rows == {}
    assert sight._seen == {}
