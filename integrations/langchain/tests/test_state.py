"""The state: merging, sealing, reading back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from safecode_guard_langchain import merge_verdicts, verdicts_in
from safecode_guard_langchain.state import (
    MOST_VERDICTS,
    merge_held,
    merge_passed,
    messages_in,
    remembers,
    resealed,
    sealed,
    unsealed,
)

from safecode_guard import Verdict
from safecode_guard.verdict import PolicyRef, Review


def verdict(**fields: Any) -> Verdict:
    given: dict[str, Any] = {"label": "safe", "action": "pass"}
    return Verdict(**given | fields, policy=PolicyRef(name="p", digest="d"))


entries = st.dictionaries(
    st.sampled_from("abcde"), st.builds(lambda t: {"created_at": str(t)}, st.integers(0, 9))
)


@given(entries, entries)
def test_of_two_verdicts_on_one_subject_the_newest_stays(left: Any, right: Any) -> None:
    merged = merge_verdicts(left, right)
    assert merged.keys() == left.keys() | right.keys()
    for key, entry in merged.items():
        both = [side[key] for side in (left, right) if key in side]
        assert entry["created_at"] == max(each["created_at"] for each in both)


@given(entries, entries)
def test_parallel_writes_merge_in_any_order(left: Any, right: Any) -> None:
    one, other = merge_verdicts(left, right), merge_verdicts(right, left)
    assert one == other


def test_the_state_keeps_a_bounded_number_of_verdicts_the_newest() -> None:
    state: dict[str, Any] = {}
    for number in range(MOST_VERDICTS + 10):
        state = merge_verdicts(state, {str(number): {"created_at": f"{number:05}"}})
    assert len(state) == MOST_VERDICTS
    assert next(iter(state)) == "10"


@pytest.mark.parametrize("merge", [merge_verdicts, merge_passed, merge_held])
def test_nothing_merges_with_nothing(merge: Any) -> None:
    assert merge(None, None) == {}
    assert merge({"a": {}}, None) == {"a": {}}
    assert merge(None, {"a": {}}) == {"a": {}}


def test_none_takes_what_was_held_away() -> None:
    assert merge_held({"a": 1, "b": 2}, {"a": None}) == {"b": 2}


def test_a_seal_holds_for_this_question_and_as_long_as_nobody_writes_in_it() -> None:
    entry = sealed(verdict(), "q")
    assert unsealed(entry, "q") == Verdict.model_validate(entry)
    assert unsealed(entry, "other") is None
    assert unsealed(entry) is not None
    for key in entry:
        assert unsealed({**entry, key: "x"}, "q") is None
        assert unsealed({k: v for k, v in entry.items() if k != key}, "q") is None
    assert unsealed({**entry, "more": 1}, "q") is None
    assert unsealed(None, "q") is None
    assert unsealed("pass", "q") is None


def test_a_reviewed_verdict_answers_the_same_question() -> None:
    entry = sealed(verdict(action="review", label="undecided"), "q")
    review = Review(decision="approve", by="ada", at=datetime.now(UTC))
    again = resealed(entry, verdict(action="review", review=review))
    found = unsealed(again, "q")
    assert found is not None
    assert found.standing == "pass"


def test_entries_are_plain_data_that_any_reader_of_verdicts_can_read() -> None:
    entry = json.loads(json.dumps(sealed(verdict(), "q")))
    assert unsealed(entry, "q") is not None
    state = {"safecode_verdicts": {"a": entry, "b": "nonsense", "c": {"label": 3}}}
    assert verdicts_in(state) == (Verdict.model_validate(entry),)
    assert verdicts_in(state, "output") == ()
    assert verdicts_in(SimpleNamespace(**state)) == verdicts_in(state)
    assert verdicts_in(SimpleNamespace()) == verdicts_in({}) == verdicts_in(None) == ()


def test_messages_are_found_in_states_of_any_form() -> None:
    message = HumanMessage("Hi")
    for state in (
        {"messages": [message]},
        [message],
        (message,),
        SimpleNamespace(messages=[message]),
    ):
        assert messages_in(state) == [message]
    for state in ({}, None, SimpleNamespace(), {"messages": "Hi"}, {"messages": [1, {}]}):
        assert messages_in(state) == []
    assert messages_in({"messages": ["Hi", ("ai", "x")]}) == [HumanMessage("Hi"), AIMessage("x")]


def test_a_state_remembers_if_it_has_the_key() -> None:
    assert remembers({"safecode_verdicts": {}})
    assert not remembers({"messages": []})
    assert not remembers([])
    assert remembers(SimpleNamespace(safecode_verdicts={}))


def test_with_a_key_nobody_else_can_seal_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    forged = sealed(verdict(), "q")
    monkeypatch.setenv("SAFECODE_SEAL_KEY", "a secret")
    assert unsealed(forged, "q") is None
    own = sealed(verdict(), "q")
    assert unsealed(own, "q") is not None
    monkeypatch.setenv("SAFECODE_SEAL_KEY", "another")
    assert unsealed(own, "q") is None
