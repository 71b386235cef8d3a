from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecode_guard import ChatTransformers, Policy, SafeCoDeGuard
from safecode_guard.errors import PolicyError
from safecode_guard.pipeline.rules import decide
from safecode_guard.server.narrowing import Narrowed, narrowed
from safecode_guard.taxonomy import ACTIONS, STAGES, severity
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from safecode_guard.verdict import Judgement
from tests.messages import ask


@pytest.mark.parametrize(
    "overrides",
    [
        {"actions": {"unsafe": "block", "undecided": "review"}},
        {"thresholds": {"unsafe": 0.4, "safe": 0.3}},
        {"stages": {"output": {"when": "always"}}},
        {"stages": {"input": {"when": "always"}}},
        {"stages": {"tool_call": {"actions": {"safe": "review"}}}},
        {"images": {"max_images": 2, "max_bytes": 1000, "overflow": "refuse"}},
        {"deadline_s": 3},
    ],
)
def test_what_lets_less_pass_is_granted(overrides: dict[str, Any]) -> None:
    assert narrowed(Policy(), overrides) == Policy().updated(**overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        {"actions": {"unsafe": "pass"}},
        {"actions": {"safe": "pass"}},
        {"actions": {"unjudgeable": "review"}},
        {"actions": {"judge_error": "guide"}},
        {"thresholds": {"unsafe": 0.9}},
        {"thresholds": {"unsafe": 0.5, "safe": 0.5}},
        {"stages": {"tool_call": {"when": "images"}}},
        {"stages": {"tool_call": {"tools": {"*": "skip"}}}},
        {"stages": {"tool_call": {"actions": {"unsafe": "pass"}}}},
        {"images": {"max_images": 100}},
        {"images": {"allow_urls": True, "url_hosts": ["a.example"]}},
        {"judge": {"kind": "local", "model": "nano"}},
        {"decoding": {"alpha": 0}},
        {"mode": "judge_only"},
        {"name": "mine"},
        {"on_block": "raise"},
        {"refusal_text": "Yes."},
        {"record_content": True},
        {"routing": {"history_images": 0}},
        {"scene_judged": "together"},
        {"category_actions": {"violent_crimes": "pass"}},
        {"nothing": 1},
        {"actions": {"unsafe": "nonsense"}},
        {"actions": "block"},
        {"thresholds": {}} | {"deadline_s": None},
    ],
)
def test_what_lets_more_pass_or_is_another_thing_is_refused(overrides: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        narrowed(Policy(thresholds={"unsafe": 0.55, "safe": 0.45}, deadline_s=5), overrides)


@pytest.mark.parametrize(
    ("own", "overrides"),
    [
        # hidden at the input, by the server's table or by the request's own
        ({"stages": {"input": {"actions": {"unsafe": "block"}}}}, {"actions": {"unsafe": "pass"}}),
        (
            {},
            {
                "actions": {"unsafe": "pass"},
                "stages": {"input": {"actions": {"unsafe": "block"}}},
            },
        ),
        # a threshold turns one label into another, whose action is milder
        ({"actions": {"undecided": "review"}}, {"thresholds": {"unsafe": 0, "safe": 0}}),
        ({"actions": {"safe": "review"}}, {"thresholds": {"safe": 0}}),
        ({"actions": {"undecided": "guide"}}, {"thresholds": {"unsafe": 0.5}}),
        (
            {
                "actions": {"undecided": "block", "unsafe": "block"},
                "category_actions": {"hate": "pass"},
            },
            {"thresholds": {"unsafe": 0, "safe": 0}},
        ),
        (
            {"stages": {"tool_call": {"tools": {"walk_[ab]": {"undecided": "block"}}}}}
            | {"actions": {"unsafe": "review"}},
            {"thresholds": {"unsafe": 0, "safe": 0}},
        ),
        # refusals are suppressed where they were not
        ({"actions": {"safe": "pass"}}, {"actions": {"safe": "guide"}}),
        # what cannot be guided was blocked, and would be held for review
        ({}, {"stages": {"tool_call": {"actions": {"unsafe": "review"}}}}),
        ({"mode": "judge_only"}, {"stages": {"input": {"actions": {"unsafe": "review"}}}}),
        # pictures are not shown to the judge
        ({}, {"images": {"max_images": 1}}),
        # tables without keys
        ({}, {"stages": {"tool_call": {"tools": {"*": {}}}}}),
        ({"judge": {"kind": "local", "model": "x"}}, {"stages": {"input": {"judge": {}}}}),
        ({}, {"self": 1}),
    ],
)
def test_no_roundabout_way_lets_more_pass(own: dict[str, Any], overrides: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        narrowed(Policy.load({"name": "x", **own}), overrides)


actions = st.sampled_from(ACTIONS)
tables = st.dictionaries(st.sampled_from(["safe", "unsafe", "undecided"]), actions)


@given(tables, st.sampled_from(["input", "output", "tool_call"]), tables, tables)
def test_no_outcome_of_any_stage_becomes_milder(
    own: dict[str, Any], stage: str, staged: dict[str, Any], wanted: dict[str, Any]
) -> None:
    policy = Policy.load({"actions": own, "stages": {stage: {"actions": staged}}, "name": "x"})
    for overrides in ({"actions": wanted}, {"stages": {stage: {"actions": wanted}}}):
        try:
            made = narrowed(policy, overrides)
        except PolicyError:
            continue
        for each in STAGES:
            old, new = policy.actions_at(each), made.actions_at(each)
            for outcome in ("safe", "unsafe", "undecided"):
                assert severity(getattr(new, outcome)) >= severity(getattr(old, outcome))


thresholds = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)
RANKS = {"pass": 1, "review": 3, "block": 4}


def rank(policy: Policy, stage: Any, p: float) -> float:
    decision = decide(Judgement(judge_id="", prompt_version="", p_unsafe=p), policy, stage)
    if decision.action != "guide":
        return RANKS[decision.action]
    return 0 if decision.label == "safe" else 2


@given(tables, thresholds, tables, thresholds, st.floats(0, 1))
def test_nothing_that_a_judge_finds_gets_a_milder_action(
    own: dict[str, Any], was: list[float], wanted: dict[str, Any], to: list[float], p: float
) -> None:
    def table(actions: dict[str, Any], edges: list[float]) -> dict[str, Any]:
        return {"actions": actions, "thresholds": {"safe": edges[0], "unsafe": edges[1]}}

    policy = Policy.load({"name": "x", **table(own, was)})
    try:
        made = narrowed(policy, {k: v for k, v in table(wanted, to).items() if v})
    except PolicyError:
        return
    for stage in STAGES:
        for at in (p, *was, *to):
            assert rank(made, stage, at) >= rank(policy, stage, at)


def test_narrowed_guards_share_the_judge_and_its_memory_and_are_bounded() -> None:
    judge = ScriptedJudge(0.9)
    guard = SafeCoDeGuard(model=ChatTransformers.from_engine(ScriptedVLM("Run.")), judge=judge)
    guards = Narrowed(guard, most=2)
    assert guards.guard({}) is guard
    strict = guards.guard({"actions": {"unsafe": "block"}})
    assert guards.guard({"actions": {"unsafe": "block"}}) is strict
    assert guard.check(ask()).action == "guide"
    verdict = strict.check(ask())
    assert (verdict.action, verdict.judge.cached) == ("block", True)
    assert verdict.policy.digest != guard.check(ask()).policy.digest
    assert len(judge.requests) == 1
    for deadline in range(1, 9):
        guards.guard({"deadline_s": deadline})
    assert len(guards._kept) == 2
    assert guard.policy.actions.unsafe == "guide"
