from __future__ import annotations

from types import SimpleNamespace

import pytest

from safecode_guard.errors import UnsupportedFamily
from safecode_guard.models.families import FAMILIES, GENERIC, family_of


def config(model_type: str, vision: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(model_type=model_type, vision_config=SimpleNamespace(model_type=vision))


def test_family_is_found_by_model_type() -> None:
    assert family_of(config("qwen2_5_vl")).name == "qwen2_5_vl"
    assert family_of(config("blip-2")).layout == "plain"


def test_same_model_type_with_another_vision_tower_is_another_family() -> None:
    assert family_of(config("llava", "clip_vision_model")).name == "llava"
    assert family_of(config("llava", "pixtral")).name == "pixtral"


def test_unknown_architecture_gets_the_cautious_record() -> None:
    family = family_of(config("brand_new_vlm"))
    assert family == GENERIC
    assert not family.shares_image_prefix
    assert not family.ragged_extend


def test_names_are_unique_and_every_record_is_reachable() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    for family in FAMILIES:
        vision = family.vision_types[0] if family.vision_types else None
        assert family_of(config(family.model_types[0], vision)) == family


def test_overrides_replace_values_of_the_record() -> None:
    overrides = {
        "schema": 1,
        "family": "llava",
        "judge_prompt": "Unsafe? {query}",
        "steering": {"alpha": 0.5},
        "needs_packages": ["num2words"],
        "notes": "trained on scenes",
    }
    family = family_of(config("something"), overrides)
    assert (family.name, family.judge_prompt) == ("llava", "Unsafe? {query}")
    assert family.steering == {"alpha": 0.5}
    assert family.needs_packages == ("num2words",)
    assert family.size_rule == "shortest_edge", "what is not overridden stays"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"schema": 2}, "has schema 2"),
        ({"family": "no_such"}, "unknown family 'no_such'"),
        ({"judge_promt": "typo"}, r"unknown keys \['judge_promt'\]"),
        ({"model_types": ["llava"]}, "unknown keys"),
    ],
)
def test_wrong_overrides_are_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(UnsupportedFamily, match=message):
        family_of(config("llava"), overrides)
