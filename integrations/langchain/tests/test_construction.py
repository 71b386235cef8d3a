"""What would guard nothing is refused, or told of, when it is made."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from safecode_guard_langchain import SafeCoDeMiddleware, guard_node, guard_tools
from support import judge_of

from safecode_guard import Policy, PolicyError, SafeCoDeCheck, SafeCoDeGuard
from safecode_guard.testing import ScriptedJudge

OFF = {
    "apply_to_input": False,
    "apply_to_tool_calls": False,
    "apply_to_tool_results": False,
    "apply_to_output": False,
}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"policy": {}}, "empty"),
        ({"policy": "lenient"}, "Unknown preset 'lenient'"),
        ({"policy": {"action": {}}}, "did you mean 'actions'"),
        ({"policy": {"actions": {"unsafe": "pass"}}}, "lets pass what is unsafe"),
        (
            {"policy": {"stages": {"tool_call": {"actions": {"unsafe": "pass"}}}}},
            "stage tool_call",
        ),
        (
            {"policy": {"stages": {"tool_call": {"tools": {"a_*": {"unsafe": "pass"}}}}}},
            "tool_call of 'a_\\*'",
        ),
        ({"tool_policies": {"a": {"actions": {"unsafe": "pass"}}}}, "lets pass what is unsafe"),
        ({"tool_policies": {"a": {}}}, "empty"),
        ({"tool_policies": {"a": None}}, "is None"),
        ({"tool_policies": {"a": "skipped"}}, "Unknown preset 'skipped'"),
        ({"tool_policies": {"*": "skip"}}, "skip every tool"),
        (OFF, "Nothing is to be judged"),
        (
            {
                "tool_policies": {"a": "skip"},
                "apply_to_tool_calls": False,
                "apply_to_tool_results": False,
            },
            "neither calls nor results",
        ),
        ({"policy": {"judge": {"kind": "custom", "id": "other"}}}, "wants the judge 'other'"),
    ],
)
def test_policies_that_guard_nothing_or_contradict_themselves(
    fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(PolicyError, match=told):
        SafeCoDeMiddleware(judge_of(), **fields)


def test_hazards_may_not_be_let_pass_either() -> None:
    from safecode_guard import JudgeAbilities

    judge = ScriptedJudge(abilities=JudgeAbilities(categories=True))
    with pytest.raises(PolicyError, match="privacy"):
        SafeCoDeMiddleware(judge, policy={"category_actions": {"privacy": "pass"}})


@pytest.mark.parametrize(
    "judge",
    [None, "gpt", 7, object(), ScriptedJudge, {}],
    ids=["none", "text", "number", "object", "class", "mapping"],
)
def test_a_judge_that_is_none(judge: Any) -> None:
    for make in (SafeCoDeMiddleware, guard_node, lambda judge: guard_tools([], judge)):
        with pytest.raises(PolicyError, match=r"judge|class"):
            make(judge)


def test_nothing_but_the_judge_is_given_by_position() -> None:
    with pytest.raises(TypeError):
        SafeCoDeMiddleware(judge_of(), Policy())  # type: ignore[misc]
    with pytest.raises(TypeError):
        SafeCoDeMiddleware(judge_of(), polcy=Policy())  # type: ignore[call-arg]


def test_what_judges_may_be_a_judge_a_chat_model_a_check_or_a_guard() -> None:
    chat = FakeListChatModel(responses=["safe"])
    check = SafeCoDeCheck(judge=judge_of())
    guard = SafeCoDeGuard(model=chat, judge=judge_of(), policy=Policy(mode="judge_only"))
    for judge in (judge_of(), chat, check, guard):
        SafeCoDeMiddleware(judge)
    rails = SafeCoDeMiddleware(check)._agent.rails
    assert rails.examiner.cache is check.examiner.cache
    assert rails.pictures is check.pictures
    assert rails.examiner.digest == check.examiner.digest


def test_a_policy_of_ones_own_shares_the_memory_of_judgements() -> None:
    check = SafeCoDeCheck(judge=judge_of())
    rails = SafeCoDeMiddleware(
        check, policy="strict", tool_policies={"a": "permissive", "b": "skip"}
    )._agent.rails
    assert rails.policy.name == "strict"
    assert rails.examiner.cache is check.examiner.cache
    assert rails.of_tool("a").cache is check.examiner.cache
    assert rails.of_tool("a").policy.name == "permissive"
    assert rails.of_tool("b") is None
    digests = {rails.examiner.digest, rails.of_tool("a").digest, check.examiner.digest}
    assert len(digests) == 3


def test_the_number_of_pictures_in_a_scene() -> None:
    assert SafeCoDeMiddleware(judge_of())._agent.policy.scene_images == 4
    made = SafeCoDeMiddleware(judge_of(), scene_images=2, tool_policies={"a": "strict"})
    assert made._agent.policy.scene_images == 2
    assert made._agent.rails.of_tool("a").policy.scene_images == 2
    own = SafeCoDeMiddleware(judge_of(), policy={"scene_images": 3})
    assert own._agent.policy.scene_images == 3
    check = SafeCoDeCheck(judge=judge_of())
    assert SafeCoDeMiddleware(check, scene_images=1)._agent.policy.scene_images == 1


def test_names() -> None:
    assert SafeCoDeMiddleware(judge_of()).name == "SafeCoDeMiddleware"
    assert SafeCoDeMiddleware(judge_of(), name="second").name == "second"


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, safecode_guard_langchain as s; s.SafeCoDeMiddleware; "
    code += "assert not {'torch', 'transformers', 'deepagents'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
