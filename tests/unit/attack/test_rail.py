"""Text of an answer that the output rail was never shown."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage

from safecode_guard.testing import ScriptedJudge
from tests.messages import ask
from tests.unit.attack.models import SECRET, Plain
from tests.unit.runnables.guards import judged_only

LOGS = {"type": "code_interpreter_call", "outputs": [{"type": "logs", "logs": SECRET}]}
INVALID: Any = {
    "name": "f", "args": SECRET, "id": "1", "error": None, "type": "invalid_tool_call",
}  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        AIMessage([{"type": "output_text", "text": SECRET}]),
        AIMessage([{"type": "refusal", "refusal": SECRET}]),
        AIMessage([{"type": "text", "text": "Sure."}, LOGS]),
        AIMessage([{"type": "non_standard", "value": {"type": "text", "text": SECRET}}]),
        AIMessage("Sure.", invalid_tool_calls=[INVALID]),
    ],
    ids=["output_text", "refusal", "logs", "non_standard", "invalid_call"],
)
def test_the_rail_is_shown_all_that_an_answer_says(answer: AIMessage) -> None:
    judge = ScriptedJudge(lambda request: 0.9 if SECRET in (request.answer or "") else 0.1)
    stages: Any = {"output": {"when": "always"}}
    guard = judged_only(judge, Plain(reply=answer), stages=stages, actions={"unsafe": "block"})
    assert SECRET not in str(guard.invoke(ask()))
