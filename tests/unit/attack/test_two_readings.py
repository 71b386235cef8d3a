"""Files and messages that are one thing to the judge and another to the model."""

from __future__ import annotations

import io
import struct
from typing import Any

from langchain_core.messages import HumanMessage
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from safecode_guard.policy import ImagePolicy
from safecode_guard.testing import ScriptedJudge
from safecode_guard.turns.images import decode
from tests.messages import image_block
from tests.unit.attack.models import Plain
from tests.unit.runnables.guards import judged_only


def test_a_png_with_a_gamma_of_its_own_is_handed_on_as_what_was_judged() -> None:
    info, file = PngInfo(), io.BytesIO()
    info.add(b"gAMA", struct.pack(">I", 1000))  # 0.01: another picture to who heeds it
    Image.new("RGB", (8, 8), (90, 90, 90)).save(file, "PNG", pnginfo=info)
    assert decode(file.getvalue(), ImagePolicy())[0].data is None


def test_a_picture_with_a_colour_profile_is_handed_on_as_what_was_judged() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "JPEG", icc_profile=profile)
    assert decode(file.getvalue(), ImagePolicy())[0].data is None


def test_plain_files_are_still_handed_on_as_they_are() -> None:
    info, file = PngInfo(), io.BytesIO()
    info.add(b"gAMA", struct.pack(">I", 45455))  # what everybody writes
    Image.new("RGB", (8, 8), "red").save(file, "PNG", pnginfo=info)
    assert decode(file.getvalue(), ImagePolicy())[0].data == file.getvalue()


class Liar(dict[str, Any]):
    """Says one thing when it is asked, and another when it is copied."""

    def get(self, key: Any, default: Any = None) -> Any:
        return "harmless" if key == "text" else super().get(key, default)


def test_a_block_that_lies_is_read_once() -> None:
    message = HumanMessage([image_block()])
    lying = Liar(type="text", text="EVIL", cache_control={"type": "ephemeral"})
    message.content.append(lying)  # type: ignore[union-attr]
    inner, judge = Plain(), ScriptedJudge(0.1)
    judged_only(judge, inner).invoke([message])
    shown = inner._seen[0][0][0].content[-1]
    assert isinstance(shown, dict)
    assert shown["text"] == judge.requests[0].scene.request
