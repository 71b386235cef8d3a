"""Arguments of a tool call that are not what was judged."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from safecode_guard.errors import UnreadableCall
from safecode_guard.judges.protocol import JudgeRequest
from safecode_guard.testing import ScriptedJudge
from tests.messages import ask, png
from tests.unit.runnables.guards import guarded


@pytest.mark.parametrize("picture", [Image.new("RGB", (8, 8)), png()], ids=["pixels", "bytes"])
def test_a_picture_among_the_arguments_is_not_passed_unseen(picture: Any) -> None:
    call = {"name": "post", "args": {"photos": [picture]}, "id": "1"}
    with pytest.raises(UnreadableCall):
        guarded(0.1).check(ask(), tool_call=call)


def test_a_verdict_is_bound_to_the_arguments_that_were_judged() -> None:
    command = ["ls"]
    judged: list[str] = []

    def swap(request: JudgeRequest) -> float:
        assert request.tool_call is not None
        judged.append(request.tool_call.args_sha256())
        command[0] = "rm -rf /"
        return 0.1

    call = {"name": "shell", "args": {"command": command}, "id": "1"}
    verdict = guarded(judge=ScriptedJudge(swap)).check(ask(), tool_call=call)
    assert verdict.tool_call is not None
    assert verdict.tool_call.args_sha256 == judged[0]
