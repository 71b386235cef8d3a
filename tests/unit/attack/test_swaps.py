"""Policies that change behind a guard's back."""

from __future__ import annotations

from typing import Any

import pytest

from safecode_guard import Policy, Verdict
from safecode_guard.errors import PolicyError
from safecode_guard.testing import ScriptedJudge
from tests.messages import ask
from tests.unit.runnables.guards import guarded, model


@pytest.mark.parametrize(
    "update",
    [
        {"policy": Policy.preset("permissive")},
        {"judge": ScriptedJudge(0.1)},
        {"model": model("other")},
        {"sinks": ()},
    ],
    ids=["policy", "judge", "model", "sinks"],
)
def test_a_copy_cannot_say_one_thing_and_do_another(update: dict[str, Any]) -> None:
    guard = guarded(0.9, policy={"actions": {"unsafe": "block"}})
    with pytest.raises(PolicyError):
        guard.model_copy(update=update)


def test_a_policy_is_frozen_to_its_last_table() -> None:
    guard = guarded(0.9)
    tables: list[Any] = [
        guard.policy.stages.tool_call.tools,
        guard.policy.stages.tool_result.tools,
        guard.policy.category_actions,
    ]
    for table in tables:
        with pytest.raises(TypeError):
            table["*"] = "skip"
        with pytest.raises(TypeError):
            table.update({"*": "skip"})
    verdict = guard.check(ask(), tool_call={"name": "rm", "args": {}, "id": "1"})
    assert verdict.label == "unsafe"


def test_a_frozen_policy_still_goes_through_json() -> None:
    policy = Policy(stages={"tool_call": {"tools": {"get_*": "skip"}}})  # type: ignore[arg-type]
    again = Policy.model_validate_json(policy.model_dump_json())
    assert again == policy
    assert again.digest() == policy.digest()
    assert policy.updated(name="b").stages == policy.stages
    assert policy.model_copy(deep=True) == policy


def test_a_block_holds_after_a_copy() -> None:
    guard = guarded(0.9, policy={"actions": {"unsafe": "block"}})
    found = Verdict.from_message(guard.model_copy().invoke(ask()))
    assert found is not None
    assert found.action == "block"
