from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from safecode_guard.errors import PolicyError
from safecode_guard.policy import (
    PRESETS,
    Actions,
    ImagePolicy,
    LocalJudgeConfig,
    OutputStage,
    Part,
    Policy,
    SameModelJudgeConfig,
    StageActions,
    Thresholds,
    ToolStage,
    key_paths,
)
from safecode_guard.taxonomy import STAGES, severity


def test_the_defaults_are_the_preset_balanced() -> None:
    assert Policy.preset("balanced") == Policy()
    assert Policy.preset("balanced").digest() == Policy().digest()


@pytest.mark.parametrize(
    ("name", "actions", "rail"),
    [
        ("balanced", ("guide", "guide", "pass", "review", "block"), "never"),
        ("strict", ("guide", "guide", "guide", "block", "block"), "unsafe"),
        ("permissive", ("guide", "guide", "pass", "guide", "review"), "never"),
    ],
)
def test_presets_say_what_follows_from_each_outcome(
    name: Any, actions: tuple[str, ...], rail: str
) -> None:
    policy = Policy.preset(name)
    assert tuple(policy.actions.model_dump().values()) == actions
    assert policy.stages.output.when == rail
    assert policy.name == name


def test_no_preset_passes_what_could_not_be_judged() -> None:
    for name in PRESETS:
        actions = Policy.preset(name).actions  # type: ignore[arg-type]
        assert severity(actions.judge_error) > severity("pass")
        assert severity(actions.unjudgeable) >= severity("review")


@pytest.mark.parametrize("outcome", ["judge_error", "unjudgeable"])
def test_no_policy_can_pass_what_could_not_be_judged(outcome: str) -> None:
    with pytest.raises(PolicyError, match=outcome):
        Policy.load({"actions": {outcome: "pass"}})


def test_overrides_of_a_preset_keep_the_rest_of_its_tables() -> None:
    policy = Policy.preset("strict", actions={"unsafe": "block"})
    assert policy.actions.unsafe == "block"
    assert policy.actions.judge_error == "block"


def test_a_part_object_replaces_the_whole_part() -> None:
    policy = Policy.preset("strict", actions=Actions(safe="pass"))
    assert policy.actions == Actions(safe="pass")


def test_what_was_left_open_stays_open_after_an_update() -> None:
    policy = Policy.load({"stages": {"tool_call": {"actions": {"unsafe": "block"}}}})
    updated = policy.updated(actions={"safe": "pass"}, decoding={"alpha": 0.1})
    assert updated.actions_at("tool_call").safe == "pass"
    assert updated.actions_at("tool_call").unsafe == "block"
    assert updated.decoding.model_fields_set == {"alpha"}
    assert Policy().updated() == Policy()


def test_an_update_keeps_the_kind_of_a_judge() -> None:
    policy = Policy(judge=LocalJudgeConfig(model="light")).updated(judge={"caption": True})
    assert policy.judge == LocalJudgeConfig(model="light", caption=True)


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PolicyError, match=r"'lenient'.*balanced.*permissive.*strict"):
        Policy.preset("lenient")  # type: ignore[arg-type]


def test_a_policy_may_be_given_in_several_forms() -> None:
    policy = Policy.preset("strict")
    assert Policy.of(policy) is policy
    assert Policy.of("strict") == policy
    assert Policy.of({"on_block": "raise"}) == Policy(on_block="raise")


@pytest.mark.parametrize("given", ["lenient", {}, {"on_blok": "raise"}, 7, None])
def test_what_is_no_policy_is_refused(given: Any) -> None:
    with pytest.raises(PolicyError):
        Policy.of(given)


@pytest.mark.parametrize("nothing", [{}, None, [], ""])
def test_an_empty_policy_is_refused(nothing: Any) -> None:
    with pytest.raises(PolicyError, match="empty"):
        Policy.load(nothing)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"treshold": {}}, "did you mean 'thresholds'"),
        ({"thresholds": {"unsave": 0.5}}, "did you mean 'thresholds.unsafe'"),
        ({"judge": {"kind": "local", "modle": "x"}}, "judge.local.model: Field required"),
        ({"thresholds": {"unsafe": 1.5}}, "thresholds.unsafe"),
        ({"thresholds": {"unsafe": 0.2, "safe": 0.3}}, "thresholds.safe must not be above"),
        ({"images": {"allow_urls": True}}, "name the hosts"),
        ({"images": {"overflow": "drop"}}, "images.overflow"),
        ({"stages": {"inptu": {}}}, "did you mean 'stages.input'"),
        ({"stages": {"input": {"whne": "always"}}}, "did you mean 'stages.input.when'"),
        ({"stages": {"input": {"when": "never"}}}, "stages.input.when"),
        ({"stages": {"input": {"tools": {}}}}, "stages.input.tools"),
        ({"stages": {"tool_call": {"tools": {"get_*": "pass"}}}}, "stages.tool_call.tools.get_*"),
        ({"stages": {"output": {"actions": {"judge_error": "pass"}}}}, "judge_error"),
        ({"scene_images": 0}, "scene_images"),
        ({"category_actions": {"arson": "block"}}, "category_actions.arson"),
        ({"refusal_text": ""}, "refusal_text"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"decoding": {"alpha": math.inf}}, "decoding.alpha"),
        ({"decoding": {"sigma": math.nan}}, "decoding.sigma"),
    ],
)
def test_a_wrong_policy_names_the_key(data: dict[str, Any], said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.load(data)
    assert said in str(caught.value)
    assert isinstance(caught.value.__cause__, ValidationError)


def test_every_wrong_key_is_named_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.load({"nmae": "x", "on_block": "shout", "deadline_s": -1})
    for key in ("nmae", "on_block", "deadline_s"):
        assert key in str(caught.value)


def test_the_values_of_a_wrong_policy_are_not_repeated() -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.load({"judge": {"kind": "local", "model": "m", "api_key": "hunter2"}})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("path", [("name",), ("thresholds", "unsafe")])
def test_a_policy_cannot_be_changed(path: tuple[str, ...]) -> None:
    part: Any = Policy()
    for name in path[:-1]:
        part = getattr(part, name)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(part, path[-1], 0.9)


def test_a_judge_without_a_kind_is_the_same_model() -> None:
    assert Policy.load({"judge": {"caption": True}}).judge == SameModelJudgeConfig(caption=True)


def test_the_judge_is_told_apart_by_its_kind() -> None:
    judge = Policy.load({"judge": {"kind": "local", "model": "m"}}).judge
    assert judge == LocalJudgeConfig(model="m")


def test_parts_refuse_contradictions_by_themselves() -> None:
    with pytest.raises(ValidationError):
        Thresholds(unsafe=0.4, safe=0.6)
    with pytest.raises(ValidationError):
        ImagePolicy(allow_urls=True)
    assert Thresholds(unsafe=0.5, safe=0.5).safe == 0.5


# -- stages -------------------------------------------------------------------------------------


def test_what_is_judged_where_by_default() -> None:
    stages = Policy().stages
    assert (stages.input.when, stages.tool_call.when) == ("images", "always")
    assert (stages.tool_result.when, stages.output.when) == ("images", "never")


@pytest.mark.parametrize(
    ("when", "label", "judged", "applies"),
    [
        ("never", "unsafe", True, False),
        ("unsafe", "safe", True, False),
        ("unsafe", "undecided", True, True),
        ("unsafe", "unsafe", True, True),
        ("unsafe", None, True, True),
        ("unsafe", None, False, False),
        ("always", "safe", True, True),
        ("always", None, False, True),
    ],
)
def test_the_output_stage_says_which_answers_it_judges(
    when: Any, label: Any, judged: bool, applies: bool
) -> None:
    assert OutputStage(when=when).applies(label, judged=judged) is applies


def test_a_stage_without_actions_has_the_policys() -> None:
    policy = Policy(actions=Actions(unsafe="review"))
    for stage in STAGES:
        assert policy.actions_at(stage) == policy.actions


def test_what_a_stages_or_a_tools_actions_leave_open_comes_from_above() -> None:
    policy = Policy.load(
        {
            "actions": {"safe": "pass", "unsafe": "guide", "undecided": "review"},
            "stages": {
                "tool_call": {
                    "actions": {"unsafe": "block"},
                    "tools": {"pay_*": {"undecided": "block"}},
                }
            },
        }
    )

    def named(tool: str | None) -> tuple[str, ...]:
        actions = policy.actions_at("tool_call", tool)
        assert actions != "skip"
        return (actions.safe, actions.unsafe, actions.undecided)

    assert named("walk") == ("pass", "block", "review")
    assert named("pay_bill") == ("pass", "block", "block")
    assert policy.actions_at("tool_result", "pay_bill") == policy.actions


def test_tools_go_by_the_first_pattern_that_matches() -> None:
    stage = ToolStage(tools={"get_secret": StageActions(safe="block"), "get_*": "skip"})
    assert stage.actions_for("get_secret") == StageActions(safe="block")
    assert stage.actions_for("get_time") == "skip"
    assert stage.actions_for("Get_time") is None
    assert stage.actions_for(None) is None


def test_a_stages_judge_without_a_kind_is_the_same_model() -> None:
    policy = Policy.load({"stages": {"output": {"judge": {"min_label_mass": 0.3}}}})
    assert policy.stages.output.judge == SameModelJudgeConfig(min_label_mass=0.3)
    assert policy.stages.input.judge is None


# -- digest -------------------------------------------------------------------------------------


def test_the_digest_is_a_sha256_of_the_values_alone() -> None:
    policy = Policy(name="pinned")
    assert policy.digest() == Policy.load(policy.model_dump()).digest()
    assert re.fullmatch("[0-9a-f]{64}", policy.digest())


def test_the_digest_does_not_depend_on_how_a_value_was_written() -> None:
    written = Policy.load(
        {"deadline_s": 5, "images": {"formats": ["PNG"]}, "decoding": {"alpha": "0.3"}}
    )
    coded = Policy.load(
        {"decoding": {"alpha": 0.3}, "images": {"formats": ("PNG",)}, "deadline_s": 5.0}
    )
    assert written.digest() == coded.digest()


def test_the_digest_does_not_depend_on_the_order_of_categories() -> None:
    one = Policy(category_actions={"privacy": "block", "hate": "review"})
    other = Policy(category_actions={"hate": "review", "privacy": "block"})
    assert one.digest() == other.digest()


CHANGES: list[dict[str, Any]] = [
    {"name": "other"},
    {"mode": "judge_only"},
    {"obeyed_by": "judge"},
    {"on_disobeyed": "retry"},
    {"images": {"max_images": 1}},
    {"routing": {"history_images": 2}},
    {"judge": {"kind": "custom", "id": "mine"}},
    {"thresholds": {"unsafe": 0.56}},
    {"decoding": {"seed": 1}},
    {"actions": {"unsafe": "block"}},
    {"category_actions": {"hate": "block"}},
    {"stages": {"output": {"when": "always"}}},
    {"scene_images": 1},
    {"scene_requests": 1},
    {"scene_judged": "each"},
    {"on_block": "raise"},
    {"refusal_text": "No."},
    {"review_text": "Wait."},
    {"record_content": True},
    {"deadline_s": 1.0},
    {"prefix_cache_bytes": 0},
]


def test_the_digest_changes_with_every_part() -> None:
    digests = {Policy.load(change).digest() for change in CHANGES} | {Policy().digest()}
    assert len(digests) == len(CHANGES) + 1
    assert {next(iter(change)) for change in CHANGES} == set(Policy.model_fields)


def test_own_objects_enter_the_digest_by_name() -> None:
    policy = Policy()
    plain = policy.digest()
    assert policy.digest(judge="a") != plain
    assert policy.digest(judge="a") != policy.digest(strategy="a")
    assert policy.digest(judge="a", strategy="b") == policy.digest(strategy="b", judge="a")


@given(
    unsafe=st.floats(0.5, 1),
    safe=st.floats(0, 0.5),
    deadline=st.none() | st.floats(0.001, 1e6),
    text=st.text(min_size=1),
    phrases=st.lists(st.text(), max_size=3),
)
def test_a_policy_survives_json_with_its_digest(
    unsafe: float, safe: float, deadline: float | None, text: str, phrases: list[str]
) -> None:
    policy = Policy.load(
        {
            "thresholds": {"unsafe": unsafe, "safe": safe},
            "deadline_s": deadline,
            "refusal_text": text,
            "decoding": {"refusal_phrases": phrases},
        }
    )
    again = Policy.model_validate_json(policy.model_dump_json())
    assert again == policy
    assert again.digest() == policy.digest()


def test_key_paths_name_every_field_there_is() -> None:
    paths = set(key_paths())
    assert set(Policy.model_fields) <= paths
    assert {"judge.kind", "judge.model", "category_actions.situational"} <= paths
    assert {"stages.output.actions.unsafe", "stages.tool_call.tools"} <= paths
    assert all(path == "category_actions" or path in paths for path in _walk(Policy()))


def _walk(part: Part, prefix: str = "") -> list[str]:
    found: list[str] = []
    for name in type(part).model_fields:
        value = getattr(part, name)
        found.append(prefix + name)
        if isinstance(value, Part):
            found += _walk(value, f"{prefix}{name}.")
    return found
