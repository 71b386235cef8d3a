"""Pictures that come in beside the messages."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from PIL import Image

from safecode_guard.errors import GuardError
from tests.messages import png
from tests.unit.attack.models import Plain
from tests.unit.runnables.guards import judged_only

URL = "data:image/png;base64," + base64.b64encode(png()).decode()


@pytest.mark.parametrize(
    "options",
    [
        {"prompt": {"id": "p", "variables": {"photo": {"type": "input_image", "image_url": URL}}}},
        {"extra_body": {"messages": [{"role": "user", "content": [{"image_url": {"url": URL}}]}]}},
        {"images": [png()]},
        {"picture": Image.new("RGB", (8, 8))},
        {"prompt": {"variables": {"photo": {"type": "input_image", "file_id": "file-1"}}}},
        {"prompt": {"variables": {"photo": {"type": "input_image", "image_url": "https://a/b"}}}},
    ],
)
def test_no_picture_reaches_the_model_as_an_option_of_the_call(options: dict[str, Any]) -> None:
    inner = Plain()
    with pytest.raises(GuardError):
        judged_only(0.1, inner).invoke([HumanMessage("What is this?")], **options)
    assert not inner._seen
