import json
import random

import pytest

from safecode_guard.judges.protocol import ToolCallSubject
from safecode_guard.tiny import calls, orders, world
from safecode_guard.tiny.scenery import FAMILIES

SPLITS = ("train", "validation", "test")


def test_a_call_is_written_as_judges_are_shown_it() -> None:
    arguments = {"where": "Küche", "target": "stove", "level": 3}
    subject = ToolCallSubject("1", "turn_on", arguments)
    assert calls.written("turn_on", arguments) == subject.canonical()


@pytest.mark.parametrize("kind", ["ordered", "renamed", "implied", "smuggled"])
def test_only_the_scene_makes_an_act_dangerous(kind: calls.Kind) -> None:
    for pair in calls.call_pairs(40, kind):
        assert pair.in_safe.request == pair.in_unsafe.request
        assert (pair.in_safe.unsafe, pair.in_unsafe.unsafe) == (False, True)
        command = FAMILIES[pair.family].command
        assert command is not None
        target = command.unsafe_target or command.target
        assert target in pair.in_unsafe.arguments.values()
        assert pair.in_safe.tool == pair.in_unsafe.tool


def test_a_harmless_call_is_harmless_in_both_scenes() -> None:
    for pair in calls.call_pairs(80, "beside"):
        assert not pair.in_safe.unsafe
        assert not pair.in_unsafe.unsafe
        command = FAMILIES[pair.family].command
        assert command is not None
        target = command.unsafe_target or command.target
        does_it = (pair.in_unsafe.tool, pair.in_unsafe.arguments.get("target"))
        assert does_it != (command.tool, target)


def test_names_and_goals_of_the_splits_never_meet() -> None:
    for names in (calls.ARGUMENTS, *calls.TOOLS.values(), *calls.GOALS.values()):
        every = [name for split in SPLITS for name in names[split]]
        assert len(every) == len(set(every))
        assert all(names[split] for split in SPLITS)


def test_renamed_calls_use_held_out_names_and_implied_ones_do_not_name_the_act() -> None:
    held_out = {
        *calls.ARGUMENTS["test"],
        *(n for each in calls.TOOLS.values() for n in each["test"]),
    }
    trained = {*calls.ARGUMENTS["train"], *(n for e in calls.TOOLS.values() for n in e["train"])}
    for pair in calls.call_pairs(60, "renamed"):
        used = {pair.in_unsafe.tool, *pair.in_unsafe.arguments}
        assert used & held_out
        assert not used & trained
    acts = {
        form.lower() for name in orders.HOUSEHOLD_TOOLS for form in (name, name.replace("_", " "))
    }
    for pair in calls.call_pairs(60, "implied"):
        assert not any(act in pair.in_unsafe.request.lower() for act in acts)


def test_a_renamed_call_keeps_or_changes_its_tools_name() -> None:
    for named in ("argument", "tool"):
        for pair in calls.call_pairs(30, "renamed", named=named):  # type: ignore[arg-type]
            assert "target" not in pair.in_unsafe.arguments
            assert (pair.in_unsafe.tool in calls.TOOLS) == (named == "argument")


def test_the_same_seed_makes_the_same_pairs() -> None:
    first, second = (calls.call_pairs(20, "renamed", seed=4) for _ in range(2))
    assert [pair.in_unsafe for pair in first] == [pair.in_unsafe for pair in second]
    assert [p.safe.image.tobytes() for p in first] == [p.safe.image.tobytes() for p in second]
    other = calls.call_pairs(20, "renamed", seed=5)
    assert [pair.in_unsafe for pair in first] != [pair.in_unsafe for pair in other]


def test_no_robot_acts_where_it_has_no_orders() -> None:
    with pytest.raises(ValueError, match="'path'"):
        calls.call(random.Random(1), world.draw(3, "path", True), "ordered")


def test_every_call_can_be_written_as_json() -> None:
    rng = random.Random(2)
    for seed in range(60):
        scene = world.draw(seed)
        made = calls.call(rng, scene, "beside")
        assert json.loads(made.text.removeprefix(made.tool)) == made.arguments
