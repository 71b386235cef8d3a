"""What LangChain's own context managers hear of an answer that was withheld."""

from __future__ import annotations

from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.tracers.context import collect_runs

from safecode_guard import SafeCoDeGuard
from safecode_guard.testing import ScriptedJudge
from tests.messages import ask
from tests.unit.attack.models import SECRET, Plain
from tests.unit.runnables.guards import judged_only


def withholding() -> SafeCoDeGuard:
    judge = ScriptedJudge(lambda request: 0.9 if request.stage == "output" else 0.1)
    return judged_only(
        judge,
        Plain(reply=SECRET),
        stages={"output": {"when": "always"}},
        actions={"unsafe": "block"},
    )


def test_collected_runs_have_nothing_of_a_withheld_answer() -> None:
    with collect_runs() as runs:
        withholding().invoke(ask())
    assert SECRET not in str([run.model_dump() for run in runs.traced_runs])


async def test_collected_runs_have_nothing_of_a_withheld_answer_on_the_loop() -> None:
    with collect_runs() as runs:
        await withholding().ainvoke(ask())
    assert SECRET not in str([run.model_dump() for run in runs.traced_runs])


def test_counts_of_tokens_have_nothing_of_a_withheld_answer() -> None:
    with get_usage_metadata_callback() as usage:
        withholding().invoke(ask())
    assert usage.usage_metadata == {}
