"""Arguments of the wrong kind: an error of ours that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from safecode_guard import SafeCoDeCheck, SafeCoDeGuard
from safecode_guard.errors import GuardError
from safecode_guard.testing import ScriptedJudge
from tests.messages import ask
from tests.unit.runnables.guards import guarded, model

JUDGE = ScriptedJudge(0.1)

CONSTRUCTORS: dict[str, Callable[[], Any]] = {
    "check: policy {}": lambda: SafeCoDeCheck(judge=JUDGE, policy={}),  # type: ignore[arg-type]
    "check: policy 42": lambda: SafeCoDeCheck(judge=JUDGE, policy=42),  # type: ignore[arg-type]
    "check: model 42": lambda: SafeCoDeCheck(42),  # type: ignore[arg-type]
    "check: sinks None": lambda: SafeCoDeCheck(judge=JUDGE, sinks=None),  # type: ignore[arg-type]
    "check: sinks [42]": lambda: SafeCoDeCheck(judge=JUDGE, sinks=[42]),  # type: ignore[list-item]
    "check: workers 0": lambda: SafeCoDeCheck(judge=JUDGE, workers=0),
    "check: misspelt": lambda: SafeCoDeCheck(judg=JUDGE),  # type: ignore[call-arg]
    "guard: nothing": lambda: SafeCoDeGuard(),
    "guard: model 42": lambda: SafeCoDeGuard(model=42),
    "guard: policy 42": lambda: SafeCoDeGuard(model=model(), policy=42),
    "guard: sinks None": lambda: SafeCoDeGuard(model=model(), judge=JUDGE, sinks=None),
    "guard: max_batch 0": lambda: guarded(0.1, max_batch=0),
    "guard: max_batch -1": lambda: guarded(0.1, max_batch=-1),
}


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_a_constructor_says_what_is_wrong(name: str) -> None:
    with pytest.raises(GuardError):
        CONSTRUCTORS[name]()


def test_a_check_takes_the_name_of_a_preset_as_a_guard_does() -> None:
    check = SafeCoDeCheck(judge=JUDGE, policy="strict")  # type: ignore[arg-type]
    assert check.policy.name == "strict"


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": "hot"}, {"temperature": -1.0}, {"max_tokens": "x"}, {"max_tokens": -5},
        {"seed": "abc"}, {"stop": 42}, {"stop": [1]}, {"tools": 42}, {"tools": [42]},
        {"tools": [{}]}, {"response_format": 42}, {"top_p": -3}, {"top_k": "a"}, {"top_k": 0},
        {"repetition_penalty": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_call_says_which_option_is_wrong(option: dict[str, Any]) -> None:
    with pytest.raises(GuardError):
        guarded(0.1).invoke(ask(), **option)


@pytest.mark.parametrize(
    "arguments",
    [
        {"tool_call": 42}, {"stage": "output", "answer": 42}, {"stage": []}, {"stag": "input"},
        {"stage": "tool_result"}, {"stage": "output"},
    ],
    ids=str,
)  # fmt: skip
def test_a_check_says_what_is_missing_or_wrong(arguments: dict[str, Any]) -> None:
    with pytest.raises(GuardError):
        guarded(0.1).check(ask(), **arguments)


@pytest.mark.parametrize("most", [-1, 0])
def test_no_batch_comes_back_empty(most: int) -> None:
    replies = guarded(0.1).batch([ask(), ask()], {"max_concurrency": most})
    assert len(replies) == 2
