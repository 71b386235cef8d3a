"""From a judgement to a label and an action."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.pipeline.rules import (
    Decision,
    at_stage,
    certainty_of,
    decide,
    label_of,
    unjudgeable,
    without_steering,
)
from safecode_guard.policy import Policy, Thresholds
from safecode_guard.taxonomy import ACTIONS, LABELS, STAGES, severity
from safecode_guard.verdict import Judgement

LATER = [stage for stage in STAGES if stage != "input"]


def judgement(p=None, label=None, **fields) -> Judgement:
    return Judgement(judge_id="t", prompt_version="1", p_unsafe=p, label=label, **fields)


FAILED = judgement(failed="down")

# -- labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "label"),
    [(0.0, "safe"), (0.45, "safe"), (0.46, "undecided"), (0.54, "undecided"), (0.55, "unsafe")],
)
def test_thresholds_belong_to_the_labels_they_bound(p, label):
    assert label_of(judgement(p), Thresholds()) == label


def test_where_the_thresholds_meet_unsafe_wins():
    assert label_of(judgement(0.5), Thresholds(safe=0.5, unsafe=0.5)) == "unsafe"


def test_a_probability_goes_before_a_label_but_not_before_undecided():
    assert label_of(judgement(0.9, "safe"), Thresholds()) == "unsafe"
    assert label_of(judgement(0.9, "undecided"), Thresholds()) == "undecided"


@pytest.mark.parametrize("label", LABELS)
def test_without_a_probability_the_judges_label_stands(label):
    assert label_of(judgement(label=label), Thresholds()) == label


def test_a_judgement_that_says_nothing_is_undecided_and_a_failed_one_is_none():
    assert label_of(judgement(), Thresholds()) == "undecided"
    assert label_of(FAILED, Thresholds()) is None


# -- actions ---------------------------------------------------------------------------------

NAMED = Policy.load({"actions": {"safe": "pass", "unsafe": "review", "undecided": "block"}})


@pytest.mark.parametrize(("p", "action"), [(0.1, "pass"), (0.9, "review"), (0.5, "block")])
def test_each_label_has_its_action(p, action):
    assert decide(judgement(p), NAMED).action == action


def test_a_failed_check_has_an_action_of_its_own_and_is_degraded():
    assert decide(FAILED, Policy()) == Decision(None, "review", degraded=True)
    assert decide(FAILED, Policy.preset("strict")).action == "block"


def test_of_several_hazards_the_most_severe_action_applies_to_unsafe_alone():
    policy = Policy(category_actions={"situational": "review", "violent_crimes": "block"})
    found = {"categories": ("situational", "violent_crimes")}
    assert decide(judgement(0.9, **found), policy).action == "block"
    assert decide(judgement(0.9, categories=("situational",)), policy).action == "review"
    assert decide(judgement(0.9, categories=("privacy",)), policy).action == "guide"
    assert decide(judgement(0.1, **found), policy).action == "guide"


@pytest.mark.parametrize("stage", STAGES)
def test_what_cannot_be_judged_is_never_a_pass(stage):
    decision = unjudgeable(Policy(), stage)
    assert decision == Decision(None, "block", degraded=True)
    assert unjudgeable(Policy.preset("permissive"), stage).action == "review"


def test_a_stages_and_a_tools_own_actions_go_first():
    policy = Policy.load(
        {
            "actions": {"unsafe": "review"},
            "stages": {
                "tool_call": {
                    "actions": {"unsafe": "block"},
                    "tools": {"get_*": {"unsafe": "pass"}, "time": "skip"},
                }
            },
        }
    )
    unsafe = judgement(0.9)
    assert decide(unsafe, policy).action == "review"
    assert decide(unsafe, policy, "tool_call", tool="walk").action == "block"
    assert decide(unsafe, policy, "tool_call", tool="get_map").action == "pass"
    with pytest.raises(ValueError, match="time"):
        decide(unsafe, policy, "tool_call", tool="time")
    assert unjudgeable(policy, "tool_call", tool="time").action == "block"


# -- where nothing can be guided -------------------------------------------------------------


@pytest.mark.parametrize("label", [*LABELS, None])
def test_guide_without_steering_passes_what_is_safe_and_blocks_all_else(label):
    action = "pass" if label == "safe" else "block"
    assert without_steering(Decision(label, "guide")).action == action
    for other in ("pass", "review", "block"):
        assert without_steering(Decision(label, other)).action == other


@pytest.mark.parametrize("label", [*LABELS, None])
@pytest.mark.parametrize("action", ACTIONS)
def test_at_the_users_turn_a_decision_stands_as_it_is(label, action):
    assert at_stage(Decision(label, action), "input") == Decision(label, action)


@given(
    st.floats(0, 1) | st.none(),
    st.sampled_from(LATER),
    st.fixed_dictionaries({label: st.sampled_from(ACTIONS) for label in LABELS}),
)
def test_later_stages_never_guide_and_never_pass_the_undecided(p, stage, actions):
    policy = Policy.load({"actions": actions})
    decision = decide(FAILED if p is None else judgement(p), policy, stage)
    assert decision.action != "guide"
    if decision.label == "undecided":
        assert severity(decision.action) >= severity("review")
    if decision.label is None:
        assert decision.stops


# -- what follows from a decision ------------------------------------------------------------


def test_refusals_are_suppressed_for_safe_alone():
    directions = {label: Decision(label, "guide").direction for label in [*LABELS, None]}
    assert directions == {
        "safe": "suppress",
        "unsafe": "boost",
        "undecided": "boost",
        None: "boost",
    }


def test_block_and_review_stop():
    stops = {action for action in ACTIONS if Decision("unsafe", action).stops}
    assert stops == {"block", "review"}


def test_the_gravest_decision_is_the_most_severe_action_then_the_worst_finding():
    rising = [
        Decision("safe", "pass"),
        Decision("undecided", "pass"),
        Decision("safe", "guide"),
        Decision("unsafe", "guide"),
        Decision(None, "guide"),
        Decision("unsafe", "review"),
        Decision("safe", "block"),
    ]
    mixed = rising[::-1]
    assert sorted(mixed, key=lambda decision: decision.gravity) == rising


@pytest.mark.parametrize(
    ("p", "label", "certainty"),
    [(0.9, "unsafe", 0.8), (0.1, "safe", 0.8), (0.55, "unsafe", 0.1), (None, "safe", 1.0)],
)
def test_certainty_is_the_distance_from_a_coin(p, label, certainty):
    assert certainty_of(judgement(p, label), label) == pytest.approx(certainty)


def test_a_guided_turn_without_a_clear_label_counts_as_sure():
    assert certainty_of(judgement(0.5), "undecided") == 1.0
    assert certainty_of(FAILED, None) == 1.0
    assert certainty_of(None, None) == 1.0
