from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.steering.safecode.leads import (
    MOST_LEAD_TOKENS,
    is_lead,
    lead_of,
    may_become_lead,
)
from tests.unit.steering.vocabularies import byte_level


@pytest.mark.parametrize(
    "text", ["", " ", "**", "## ", "> - ", '"', "🚫 ", "1. ", "Answer:", "**Antwort:** ", "回答："]
)
def test_leads(text):
    assert is_lead(text)
    assert all(may_become_lead(text[:n]) for n in range(len(text) + 1))


@pytest.mark.parametrize("text", ["I", "**I", "Answers", "1.5", "The answer:", "Sure:", "123. "])
def test_words_are_none(text):
    assert not is_lead(text)
    assert not may_become_lead(text + " x")


@given(text=st.text(max_size=30), more=st.text(max_size=10))
def test_a_lead_that_is_over_stays_as_it_is(text, more):
    vocabulary = byte_level()
    ids, longer = vocabulary.encode(text), vocabulary.encode(text) + vocabulary.encode(more)
    lead = lead_of(vocabulary, ids)
    assert 0 <= lead.length <= min(len(ids), MOST_LEAD_TOKENS)
    if lead.over:
        assert lead_of(vocabulary, longer) == lead
