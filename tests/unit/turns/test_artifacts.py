"""Images in artifacts are found where their bytes are at hand, in whatever wraps them."""

from __future__ import annotations

import base64
import io
from collections import deque
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from pydantic import BaseModel

from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.artifacts import MAX_VALUES, images_in
from safecode_guard.turns.images import load

PIXELS = Image.effect_noise((12, 10), 90).convert("RGB")
FILE = io.BytesIO()
PIXELS.save(FILE, "PNG")
DATA = FILE.getvalue()
BASE64 = base64.b64encode(DATA).decode()


class Content(BaseModel):
    """As in the Model Context Protocol."""

    type: str = "image"
    data: str = BASE64
    mimeType: str = "image/png"


class Resource(BaseModel):
    uri: str = "file:///shot.png"
    mimeType: str = "image/png"
    blob: str = BASE64


class Result(BaseModel):
    content: list[Any]


@dataclass
class Shot:
    picture: Any
    name: str = "shot"


FORMS: dict[str, Any] = {
    "bytes": DATA,
    "bytearray": bytearray(DATA),
    "memoryview": memoryview(DATA),
    "base64": BASE64,
    "data url": f"data:image/png;base64,{BASE64}",
    "v1 block": {"type": "image", "base64": BASE64, "mime_type": "image/png"},
    "anthropic": {"source": {"type": "base64", "media_type": "image/png", "data": BASE64}},
    "openai": [{"image_url": {"url": f"data:image/png;base64,{BASE64}"}}],
    "nested": {"pages": [{"n": 1, "shots": (DATA,)}]},
    "mcp image": Content(),
    "mcp resource": {"resource": Resource()},
    "mcp result": Result(content=[Content(), {"type": "text", "text": "words"}]),
    "dataclass": Shot(DATA),
    "an object like MCP's": SimpleNamespace(type="image", data=BASE64, mimeType="image/png"),
}


@pytest.mark.parametrize("name", FORMS)
def test_each_form_gives_the_image(name: str) -> None:
    (media,) = images_in(FORMS[name])
    (image,) = load(media, ImagePolicy())
    assert (image.pixels.size, image.mime) == ((12, 10), "image/png")


def test_image_objects_are_images() -> None:
    (media,) = images_in({"shot": Shot(PIXELS)})
    assert media.source is PIXELS


@pytest.mark.parametrize(
    "artifact",
    [
        None,
        "words",
        b"%PDF-1.7 and so on",
        {"url": "https://e.org/a.png", "path": "/tmp/a.png", "type": "image"},
        [{"page_content": "words", "metadata": {"source": "a.png"}}],
        Content,
        object(),
        {"mimeType": "image/png", "data": None},
    ],
)
def test_addresses_and_other_data_are_no_images(artifact: Any) -> None:
    assert images_in(artifact) == []


def test_what_says_that_it_is_an_image_is_one_though_it_cannot_be_read() -> None:
    assert len(images_in(Content(data="not base64 at all"))) == 1


def test_looking_ends() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert images_in(endless) == []
    table = [[i] for i in range(MAX_VALUES)]
    assert len(images_in([DATA, table, DATA])) == 1
    assert len(images_in([DATA, DATA])) == 2


@dataclass(slots=True)
class InSlots:
    png: bytes


class Plain:
    def __init__(self, png: bytes) -> None:
        self.png = png


@pytest.mark.parametrize(
    "wrap",
    [InSlots, Plain, io.BytesIO, lambda d: {d}, lambda d: frozenset({d}), lambda d: deque([d])],
)
def test_objects_of_every_kind_are_looked_into(wrap: Any) -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    assert len(images_in(wrap(file.getvalue()))) == 1
    assert images_in(wrap(b"no image")) == []
    assert images_in([Plain, io, print, len]) == []
    assert len(images_in(SimpleNamespace(connection=b"x", shot=DATA))) == 1
