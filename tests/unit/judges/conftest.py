from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from PIL import Image

from safecode_guard.judges.protocol import JudgeRequest
from safecode_guard.turns.images import CheckedImage
from safecode_guard.turns.scene import scene_of
from safecode_guard.turns.turn import ImagePart, TextPart, Turn, TurnMessage


def checked(colour: str = "red", size: tuple[int, int] = (8, 8)) -> CheckedImage:
    digest = hashlib.sha256(colour.encode()).hexdigest()
    return CheckedImage(Image.new("RGB", size, colour), digest, "image/png", 0, 0)


@pytest.fixture
def picture() -> Callable[..., CheckedImage]:
    return checked


@pytest.fixture
def turn() -> Callable[..., Turn]:
    def make(text: str = "How do I run faster here?", colour: str = "red") -> Turn:
        return Turn((TurnMessage("user", (ImagePart(0), TextPart(text))),), (checked(colour),))

    return make


@pytest.fixture
def request_for(turn: Callable[..., Turn]) -> Callable[..., JudgeRequest]:
    def make(text: str = "How do I run faster here?", **fields: object) -> JudgeRequest:
        stage = fields.pop("stage", "input")
        return JudgeRequest(stage, scene_of(turn(text)), **fields)  # type: ignore[arg-type]

    return make
