"""Image objects become bytes, so that a cache's key is made of what they show."""

from __future__ import annotations

import base64
import io
import time
from typing import Any

import pytest
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from PIL import Image

from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.inlining import with_bytes
from safecode_guard.turns.reading import read_turn

TEXT = {"type": "text", "text": "words"}


def picture(colour: str = "teal") -> Image.Image:
    return Image.new("RGB", (8, 6), colour)


def message(content: Any) -> HumanMessage:
    made = HumanMessage("")
    made.content = content
    return made


FORMS: dict[str, Any] = {
    "image": lambda i: [{"type": "image", "image": i}],
    "image_url": lambda i: [{"type": "image_url", "image_url": i}],
    "url": lambda i: [{"type": "image_url", "image_url": {"url": i}}],
    "data": lambda i: [{"type": "image", "data": i}],
    "bedrock": lambda i: [{"image": {"format": "png", "source": {"bytes": i}}}],
    "list": lambda i: [{"type": "image", "images": [i]}],
    "bare": lambda i: [i],
    "alone": lambda i: i,
    "nested": lambda i: [{"type": "tool_result", "content": [{"type": "image", "image": i}]}],
    "wrapped": lambda i: [{"type": "non_standard", "value": {"type": "image", "image": i}}],
}
READABLE = FORMS.keys() - {"url"}


@pytest.mark.parametrize("form", FORMS)
def test_no_image_object_is_left(form: str) -> None:
    (made,) = with_bytes([message(FORMS[form](picture()))])
    assert "PIL" not in repr(made.content)


@pytest.mark.parametrize("form", sorted(READABLE))
def test_the_message_reads_the_same(form: str) -> None:
    given = message(FORMS[form](picture()))
    before, after = read_turn([given]), read_turn(with_bytes([given]))
    assert after.images[0].pixels.tobytes() == before.images[0].pixels.tobytes()
    assert after.images[0].mime == "image/png"
    assert not after.skipped


def test_the_block_is_a_v1_block_in_its_place() -> None:
    (made,) = with_bytes([HumanMessage([TEXT, {"type": "image", "image": picture()}, TEXT])])
    assert made.content[0] == made.content[2] == TEXT
    block: Any = made.content[1]
    assert block.keys() == {"type", "base64", "mime_type"}
    shown = Image.open(io.BytesIO(base64.b64decode(block["base64"])))
    assert (shown.format, shown.getpixel((0, 0))) == ("PNG", (0, 128, 128))


def test_what_a_message_is_written_as_depends_on_its_pixels_and_on_nothing_else() -> None:
    def written(colour: str) -> str:
        return dumps(with_bytes([HumanMessage([{"type": "image", "image": picture(colour)}])]))

    assert written("teal") == written("teal")
    assert written("teal") != written("red")


def test_messages_without_image_objects_stay_the_objects_they_are() -> None:
    messages: list[BaseMessage] = [
        HumanMessage("words"),
        HumanMessage([TEXT, {"type": "image", "base64": "AAAA"}]),
        AIMessage([TEXT]),
        ToolMessage("42", tool_call_id="1", artifact={"rows": [1, 2, 3]}),
    ]
    assert all(one is two for one, two in zip(messages, with_bytes(messages), strict=True))


def test_messages_are_not_changed() -> None:
    image = picture()
    given = HumanMessage([{"type": "image", "image": image}], id="a", name="n")
    (made,) = with_bytes([given])
    assert given.content == [{"type": "image", "image": image}]
    assert (made.id, made.name) == ("a", "n")


def test_pixels_are_those_that_are_judged() -> None:
    turned = picture().resize((8, 6))
    turned.getexif()[0x0112] = 6
    for image in (turned, picture().convert("RGBA"), picture().convert("CMYK")):
        given = message([{"type": "image", "image": image}])
        before, after = read_turn([given]), read_turn(with_bytes([given]))
        assert after.images[0].pixels.tobytes() == before.images[0].pixels.tobytes()


def test_what_the_limits_refuse_is_left_to_be_refused() -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(file, "PNG")
    damaged = Image.open(io.BytesIO(file.getvalue()[:200]))
    for image, policy in ((damaged, ImagePolicy()), (picture(), ImagePolicy(max_pixels=10))):
        given = message([{"type": "image", "image": image}, image])
        (made,) = with_bytes([given], policy)
        assert made.content == given.content
        assert len(read_turn([made], policy).skipped) == 2


def test_content_that_contains_itself_ends() -> None:
    block: dict[str, Any] = {"type": "non_standard"}
    block["value"] = block
    (made,) = with_bytes([message([block])])
    assert made.content == [block]


def test_messages_without_image_objects_cost_next_to_nothing() -> None:
    messages: list[BaseMessage] = [HumanMessage([TEXT, {"type": "image", "base64": "A" * 10**6}])]
    start = time.perf_counter()
    for _ in range(100):
        with_bytes(messages)
    assert time.perf_counter() - start < 0.05
