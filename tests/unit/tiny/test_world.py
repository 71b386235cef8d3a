import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safecode_guard.tiny import orders, world
from safecode_guard.tiny.scenery import FAMILIES, SCARY_SCENES, TEMPLATES

SPLITS = ("train", "validation", "test")
TOPICS = (*FAMILIES, "scary", "harmful")
FINGERPRINT = """
import hashlib, sys
from safecode_guard.tiny import orders, world
digest = hashlib.sha256()
for pair in world.pairs(20, split="test"):
    digest.update(f"{pair.id}{pair.query}{pair.safe.caption}{pair.unsafe.caption}".encode())
    digest.update(pair.safe.image.tobytes() + pair.unsafe.image.tobytes())
for order in orders.orders(5, split="validation"):
    digest.update(order.text.encode() + order.unsafe.image.tobytes())
for item in world.scary(5, split="validation"):
    digest.update(item.query.encode() + item.scene.image.tobytes())
assert not {"torch", "transformers"} & set(sys.modules), "drawing must stay cheap"
print(digest.hexdigest())
"""


def _fingerprint(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", FINGERPRINT]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_the_world_is_the_same_in_every_process_and_needs_no_torch() -> None:
    assert _fingerprint("1") == _fingerprint("2")


@given(seed=st.integers(0, 2**52))
@settings(max_examples=30, deadline=None)
def test_a_seed_always_draws_the_same_scene(seed: int) -> None:
    first, second = world.draw(seed), world.draw(seed)
    assert first.image.tobytes() == second.image.tobytes()
    assert (first.caption, first.unsafe) == (second.caption, second.unsafe)


def test_other_seeds_draw_other_pictures() -> None:
    pictures = {world.draw(seed, "path", False).image.tobytes() for seed in range(50)}
    assert len(pictures) == 50


@pytest.mark.parametrize("family", FAMILIES)
def test_the_two_variants_of_a_family_look_and_read_differently(family: str) -> None:
    for seed in range(5):
        safe, unsafe = world.draw(seed, family, False), world.draw(seed, family, True)
        difference = np.abs(np.asarray(safe.image, int) - np.asarray(unsafe.image, int)).mean()
        assert difference > 1
        assert safe.subject != unsafe.subject
        assert (safe.hazard, safe.unsafe) == ("", False)
        assert unsafe.hazard
        assert unsafe.unsafe


@pytest.mark.parametrize("topic", TOPICS)
def test_each_combination_of_phrase_and_template_is_in_exactly_one_split(topic: str) -> None:
    texts = [query.text for split in SPLITS for query in world.queries(split, topic)]
    assert len(texts) == len(set(texts)) == len(world.phrases(topic)) * len(TEMPLATES)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50)
def test_scene_seeds_of_the_splits_never_meet(seed: int) -> None:
    low = {split: world.scene_seed(random.Random(seed), split) for split in SPLITS}
    assert low["train"] < 1 << 48
    assert 1 << 50 <= low["validation"] < (1 << 50) + (1 << 48)
    assert 1 << 51 <= low["test"] < (1 << 51) + (1 << 48)


def test_held_out_shares_are_about_as_promised() -> None:
    counts = {
        split: sum(not query.unseen for topic in TOPICS for query in world.queries(split, topic))
        for split in SPLITS
    }
    total = sum(counts.values())
    assert 0.09 < counts["validation"] / total < 0.15
    assert 0.12 < counts["test"] / total < 0.18


def test_phrases_unseen_in_training_are_asked_in_one_held_out_split_alone() -> None:
    asked = {
        split: {q.phrase for topic in TOPICS for q in world.queries(split, topic) if q.unseen}
        for split in SPLITS
    }
    assert asked["train"] == set()
    assert len(asked["validation"]) >= 6
    assert len(asked["test"]) >= 6
    assert not asked["validation"] & asked["test"]
    trained = {q.text for topic in TOPICS for q in world.queries("train", topic)}
    unseen = asked["validation"] | asked["test"]
    assert not [text for text in trained if any(phrase in text for phrase in unseen)]


def test_pairs_ask_one_request_over_both_variants() -> None:
    pairs = world.pairs(100, split="validation")
    assert len({pair.id for pair in pairs}) == 100
    allowed = {q.text for topic in FAMILIES for q in world.queries("validation", topic)}
    for pair in pairs:
        assert pair.query in allowed
        assert pair.phrase in pair.query
        assert pair.safe.family == pair.unsafe.family == pair.family
        assert (pair.safe.unsafe, pair.unsafe.unsafe) == (False, True)
        assert pair.tip == FAMILIES[pair.family].tip
    assert 5 < sum(pair.unseen for pair in pairs) < 30


def test_other_seeds_give_other_pairs() -> None:
    first, second = (world.pairs(10, split="test", seed=seed) for seed in (1, 2))
    assert [p.safe.image.tobytes() for p in first] != [p.safe.image.tobytes() for p in second]


def test_a_request_is_unsafe_only_in_the_unsafe_scene_of_its_own_family() -> None:
    query = world.queries("train", "knife")[0]
    assert query.unsafe_in(world.draw(1, "knife", True))
    assert not query.unsafe_in(world.draw(1, "knife", False))
    assert not query.unsafe_in(world.draw(1, "stove", True))
    assert not query.unsafe_in(None)
    assert world.queries("train", "harmful")[0].unsafe_in(None)


def test_scary_requests_are_harmless_and_come_with_a_tip() -> None:
    for item in world.scary(30, split="test"):
        assert item.scene.family in SCARY_SCENES
        assert not item.scene.unsafe
        assert item.tip
        assert item.phrase in item.query


def test_harmful_requests_are_held_out_ones() -> None:
    asked = set(world.harmful_queries(50, split="test"))
    assert asked <= {query.text for query in world.queries("test", "harmful")}
    assert not asked & {query.text for query in world.queries("train", "harmful")}


def test_orders_of_the_splits_never_meet_and_name_what_they_act_on() -> None:
    texts = [c.text for f in FAMILIES for s in SPLITS for c in orders.commands(s, f)]
    assert len(texts) == len(set(texts)) > 50
    plants = [order for order in orders.orders(60, split="test") if order.family == "plant"]
    assert plants
    assert {(o.target, o.unsafe_target) for o in plants} == {("plant", "laptop")}


def test_utility_questions_have_the_answers_that_the_scene_shows() -> None:
    scene = world.draw(3, "path", True)
    answers = dict(world.utility(scene))
    assert scene.shirt
    assert answers["What color is the shirt?"] == f"The shirt is {scene.shirt}."
    assert answers["Describe this image in one concise, informative caption."] == scene.caption
    assert scene.sky in answers["What is the weather like?"]
    assert "What color is the shirt?" not in dict(world.utility(world.draw(3, "stove", True)))


@pytest.mark.parametrize(("family", "unsafe"), [("volcano", None), ("poster", True)])
def test_scenes_that_do_not_exist_are_refused(family: str, unsafe: bool | None) -> None:
    with pytest.raises(ValueError, match=family):
        world.draw(1, family, unsafe)
