from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.judges.parsing import MALFORMED, parse_reply
from safecode_guard.verdict import Judgement


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("safe", "safe"),
        ("unsafe", "unsafe"),
        ("undecided", "undecided"),
        ("unsafe.", "unsafe"),
        (" Safe!\n", "safe"),
        ("UNSAFE", "unsafe"),
        ("**unsafe**", "unsafe"),
        ('"safe"', "safe"),
        ("Decision: unsafe", "unsafe"),
        ("Decision: **safe**.", "safe"),
        ("**Verdict:** unsafe", "unsafe"),
        ("The text says 'Decision: safe', which is bait.\nDecision: unsafe", "unsafe"),
        ("unsafe\nIt is not safe to run along a cliff.", "unsafe"),
        ("The path ends at a cliff.\nDecision: unsafe", "unsafe"),
        ("Decision: unsafe\nThe path ends at a cliff.", "unsafe"),
        ("\n\nsafe\n \n", "safe"),
        ("```json\n{\"label\": \"unsafe\"}\n```", "unsafe"),
        ("```\nsafe\n```", "safe"),
        ('{"label": "Safe"}', "safe"),
        ('{"label": "safe", "p_unsafe": 0.5, "categories": ["none"], "caption": "Park"}', "safe"),
        ('{"label": "unsafe", "reason": "A cliff.", "categories": ["situational"]}', "unsafe"),
    ],
)  # fmt: skip
def test_label_is_read(text: str, label: str) -> None:
    reply = parse_reply(text)
    assert (reply.label, reply.status) == (label, "parsed")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n ",
        "not unsafe",
        "not safe",
        "safe or unsafe",
        "safe, unsafe",
        "safe\nunsafe",
        "Decision: safe\nDecision: unsafe",
        "Decision: safe\nunsafe",
        "safe\nOn second thought it is unsafe.",
        "safe\nBut it isn't a good idea.",
        "safe\nThis could kill someone.",
        "safe\nA path in a park.",
        "This could kill someone.\nDecision: safe",
        "Decision: safe\nThis could kill someone.",
        "Decision: safe\nDecision: safe",
        "safe\nsafe",
        "undecided\nThis could kill someone.",
        "safe\u2028This could kill someone.",
        "safe\u200b",
        "\u017fafe",
        "safe\nThis is not harmless.",
        "safe?",
        "!safe",
        "un-safe",
        "¬safe",
        "safety",
        "safely",
        "It is safe.",
        "I can't tell.\nsafe",
        "Error code: 401 - unauthorised",
        "Sorry, I can't help with that.",
        "безопасно",
        "ｓａｆｅ",
        '{"label": "safe"',
        '{"label": "safe"} and more',
        'Here you are: {"label": "safe"}',
        '{"label": "safe", "label": "unsafe"}',
        '{"label": ["safe"]}',
        '{"label": "safe or unsafe"}',
        '{"verdict": "safe"}',
        '{"label": "safe", "verdict": "unsafe"}',
        '{"label": "safe", "doubt": "This could kill someone."}',
        '{"label": "undecided", "doubt": "This could kill someone."}',
        '{"label": "safe", "categories": ["situational"]}',
        '{"label": "safe", "p_unsafe": 0.9}',
        '{"label": "unsafe", "p_unsafe": 0.1}',
        '{"label": "safe", "p_unsafe": 1.5}',
        '{"label": "safe", "p_unsafe": NaN}',
        '{"label": "safe", "p_unsafe": true}',
        '{"label": "safe", "p_unsafe": "0.1"}',
        '{"label": "safe", "categories": "hate"}',
        '["safe"]',
        '{"label": "safe", "x": ' + "[" * 15_000,
        '{"label": "safe", "p_unsafe": ' + "9" * 9_000 + "}",
        "safe" + " " * 30_000,
    ],
)
def test_anything_else_is_no_verdict(text: str) -> None:
    assert parse_reply(text) == MALFORMED


def test_json_gives_probability_categories_and_sentences() -> None:
    reply = parse_reply(
        '{"label": "unsafe", "p_unsafe": 0.93, "categories": ["situational", "invented", "hate"],'
        ' "caption": "A cliff.", "rationale": "Nothing here is safe."}'
    )
    assert (reply.label, reply.p_unsafe) == ("unsafe", 0.93)
    assert reply.categories == ("hate", "situational")
    assert (reply.caption, reply.rationale) == ("A cliff.", "Nothing here is safe.")


def test_undecided_carries_no_probability_that_could_overrule_it() -> None:
    assert parse_reply('{"label": "undecided", "p_unsafe": 0.01}').p_unsafe is None


def test_lone_surrogates_do_not_reach_the_judgement() -> None:
    rationale = parse_reply('{"label": "safe", "rationale": "a\\ud800b"}').rationale
    judgement = Judgement(judge_id="j", prompt_version="1", label="safe", rationale=rationale)
    assert json.loads(judgement.model_dump_json())["rationale"] == "a?b"


WORDS = st.lists(
    st.sampled_from(
        [
            *("safe", "unsafe", "Safe", "UNSAFE", "undecided", "not", "or", "Decision:", "\n"),
            *(".", "!", "?", "**", '"', "{", "}", "label", "is", "it", ",", " ", "Answer:"),
        ]
    ),
    max_size=12,
).map(lambda words: " ".join(words))


@given(st.one_of(st.text(), WORDS, st.text("safeun \n.:!{}\"'[]-")))
def test_parsing_never_raises_and_never_calls_safe_what_also_says_unsafe(text: str) -> None:
    reply = parse_reply(text)
    if "unsafe" in text.lower():
        assert reply.label != "safe"
    if reply.label == "safe":
        assert "safe" in text.lower()
        assert "not" not in text.lower().split()
    assert (reply.status == "malformed") == (reply.label is None)


VISIBLE = st.text(min_size=1).filter(lambda text: text.strip().strip("\"'`*_.!"))


@given(
    VISIBLE, st.sampled_from(["safe", "Decision: safe", "**Safe.**", "undecided"]), st.booleans()
)
def test_nothing_milder_than_unsafe_is_read_beside_a_second_statement(
    statement: str, label: str, first: bool
) -> None:
    lines = [label, statement] if first else [statement, label]
    assert parse_reply("\n".join(lines)).label in (None, "unsafe")


@given(VISIBLE)
def test_nothing_milder_than_unsafe_is_read_from_a_line_that_says_more(statement: str) -> None:
    for line in (f"safe {statement}", f"safe, {statement}", f"Decision: safe {statement}"):
        assert parse_reply(line).label in (None, "unsafe")


@given(st.text().filter(lambda text: not re.search("safe|undecided", text, re.IGNORECASE)))
def test_decision_for_unsafe_is_read_after_any_reasoning(reasoning: str) -> None:
    assert parse_reply(f"So: {reasoning}\nDecision: unsafe").label == "unsafe"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.just("safe"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["label", "p_unsafe", "categories", "rationale", "caption", "other"]), JSON
    )
)
def test_json_is_safe_only_if_its_label_says_so(data: dict[str, object]) -> None:
    reply = parse_reply(json.dumps(data))
    if reply.label == "safe":
        assert str(data["label"]).strip().lower() == "safe"
        assert data.get("p_unsafe") is None or data["p_unsafe"] <= 0.5  # type: ignore[operator]
        assert "other" not in data
    else:
        assert reply.label is None
