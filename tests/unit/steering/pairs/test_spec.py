"""Whatever a request carries: a spec, or a ValueError of one sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safecode_guard.steering.pairs.cover import Cover, Node
from safecode_guard.steering.pairs.packing import pack, pack_ids, unpack, unpack_ids
from safecode_guard.steering.pairs.spec import MOST_ID, PairSpec

COVER = Cover(
    [Node({5: 1, 9: 2}, {5: 1.0}), Node({6: 3}, {6: 1.5}), Node(cut=True), Node()],
    lead=16,
    passed=frozenset({7, 8}),
    unsure=frozenset({9, 11}),
    doubts={9: frozenset({3})},
)
SPEC = PairSpec(
    pair="ab" * 16,
    role="main",
    steps=5,
    most=16,
    alpha=0.3,
    normalise="rescale",
    top_k=20,
    plausibility=0.1,
    push=2.5,
    eos=(1,),
    halt=2,
    seal=0,
    cover=COVER,
)
JSON: dict[str, Any] = json.loads(SPEC.to_text())
RUBBISH = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([float("nan"), float("inf"), -1, 10**30, 2**63, -(10**30), "", "é", [], {}]),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
)


def test_a_spec_survives_being_sent() -> None:
    again = PairSpec.from_text(SPEC.to_text())
    assert again.to_text() == SPEC.to_text()
    assert (again.shared, again.longest, again.highest) == (SPEC.shared, 32, 11)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": True},
        {"pair": "ab"},
        {"pair": "AB" * 16},
        {"role": "both"},
        {"role": "twin"},
        {"cover": None},
        {"steps": -1},
        {"steps": 17},
        {"steps": 5.0},
        {"steps": True},
        {"most": 65},
        {"most": 0},
        {"alpha": 1},
        {"alpha": -0.1},
        {"alpha": "0.3"},
        {"alpha": float("nan")},
        {"alpha": 2, "normalise": "none"},
        {"normalise": "softmax"},
        {"top_k": 0},
        {"plausibility": 1.1},
        {"push": float("-inf")},
        {"push": 1e6},
        {"push": False},
        {"eos": [MOST_ID + 1]},
        {"eos": [True]},
        {"eos": [-1]},
        {"eos": list(range(3, 100))},
        {"halt": 0},
        {"seal": 1},
        {"halt": -1},
        {"halt": 2**40},
        {"more": 1},
    ],
)
def test_what_is_out_of_bounds_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="^safecode: "):
        PairSpec.from_text(json.dumps(JSON | change))


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": pack([3, 5, 1])},
        {"nodes": pack([2, 5, 9, 0])},
        {"nodes": pack([0, 0])},
        {"nodes": pack([3, 5, 1, 0, 0, 0, 0])},
        {"nodes": "!"},
        {"nodes": "gA=="},
        {"nodes": ""},
        {"nodes": 5},
        {"nodes": pack([2, MOST_ID + 1, 0, 0])},
        {"shares": [float("nan")]},
        {"shares": [True]},
        {"shares": [-0.5]},
        {"shares": {}},
        {"lead": 17},
        {"lead": False},
        {"passed": pack([4, 0])},
        {"passed": "gICAgICAgAE="},
        {"unsure": None},
        {"doubts": [[5]]},
        {"doubts": [[-1, ""]]},
        {"doubts": [[1.5, ""]]},
        {"inside": 1},
        {"once": None},
        {"more": 1},
    ],
)
def test_a_cover_that_leads_nowhere_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="^safecode: "):
        PairSpec.from_text(json.dumps(JSON | {"cover": JSON["cover"] | change}))


@pytest.mark.parametrize(
    "text",
    [None, b"{}", 5, "", "{", "[]", "null", "[" * 60_000, " " * 70_000, '{"a":' * 9_000, "NaN"],
)
def test_what_is_no_spec_at_all_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="^safecode: "):
        PairSpec.from_text(text)


def test_a_field_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        PairSpec.from_text(SPEC.to_text()[:-1] + ',"push":1}')


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(JSON)), value=RUBBISH, where=st.booleans(), data=st.data())
def test_rubbish_is_refused_and_never_another_error(
    name: str, value: Any, where: bool, data: st.DataObject
) -> None:
    changed = JSON | {name: value}
    if where:
        field = data.draw(st.sampled_from(sorted(JSON["cover"])))
        changed = JSON | {"cover": JSON["cover"] | {field: value}}
    text = json.dumps(changed)
    if data.draw(st.booleans()):
        cut = data.draw(st.integers(0, len(text)))
        text = text[:cut] + data.draw(st.text(max_size=3)) + text[cut + 1 :]
    try:
        spec = PairSpec.from_text(text)
    except ValueError as error:
        refusal = error
    else:
        assert PairSpec.from_text(spec.to_text()).to_text() == spec.to_text()
        assert 0 <= spec.highest <= MOST_ID
        return
    assert type(refusal) is ValueError
    assert str(refusal).startswith("safecode: ")
    assert "\n" not in str(refusal)


@given(st.lists(st.integers(0, 2**28 - 1)))
def test_numbers_survive_packing(numbers: list[int]) -> None:
    assert list(unpack(pack(numbers))) == numbers
    assert unpack_ids(pack_ids(numbers)) == frozenset(numbers)
