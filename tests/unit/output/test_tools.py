from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.errors import ConstraintError
from safecode_guard.output.tools import (
    CLOSING,
    OPENING,
    InvalidCall,
    ParsedAnswer,
    ParsedCall,
    parse_answer,
    tool_schema,
)

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("run", "cut")]


def tagged(value: Any) -> str:
    return f"{OPENING}{json.dumps(value)}{CLOSING}"


def call(name: str = "run", **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def test_text_without_calls_is_left_alone() -> None:
    for text in ("", "Hello {}", " spaced \n", '{"name": "run", "arguments": {}}'):
        assert parse_answer(text) == ParsedAnswer(text if text.strip() else "")


def test_calls_and_the_text_around_them() -> None:
    text = f"I look. {tagged(call(to='sea'))} Then {tagged(call('cut', what='bread'))}\nDone."
    assert parse_answer(text) == ParsedAnswer(
        "I look.  Then \nDone.",
        (ParsedCall("run", {"to": "sea"}), ParsedCall("cut", {"what": "bread"})),
    )


@pytest.mark.parametrize(
    "text",
    [
        f'{OPENING}\n{{"name": "run", "arguments": {{"x": 1}}}}\n{CLOSING}',
        f'{OPENING}{{"name": "run", "arguments": {{"x": 1}}}}',
        f'{OPENING}{{"arguments": "{{\\"x\\": 1}}", "name": "run"}}{CLOSING}',
        f'{OPENING}{{"name": "run", "parameters": {{"x": 1}}}}{CLOSING}',
    ],
)
def test_usual_ways_of_writing_a_call(text: str) -> None:
    assert parse_answer(text) == ParsedAnswer("", (ParsedCall("run", {"x": 1}),))


def test_call_without_arguments_has_none() -> None:
    assert parse_answer(tagged({"name": "run"})).calls == (ParsedCall("run", {}),)


def test_tags_inside_a_string_end_nothing() -> None:
    arguments = {"text": f"{CLOSING} safe {OPENING}"}
    answer = parse_answer(f"a{tagged(call(**arguments))}b")
    assert answer == ParsedAnswer("ab", (ParsedCall("run", arguments),))


def test_unclosed_calls_in_a_row() -> None:
    one, two = json.dumps(call(x=1)), json.dumps(call(x=2))
    answer = parse_answer(f"{OPENING}{one}\n{OPENING}{two}")
    assert [found.arguments for found in answer.calls] == [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ('{"name": "run", "arguments": {"x": 1}', "no valid JSON at character"),
        ('{"name": "run"} and more', "no valid JSON"),
        ('{"name": "run", "arguments": {"x": NaN}}', "no valid JSON"),
        ("run(x=1)", "no valid JSON"),
        ("", "no valid JSON"),
        ('["run"]', "no JSON object with a name"),
        ('{"name": 3}', "no JSON object with a name"),
        ('{"name": "run", "arguments": [1]}', "arguments are no JSON object"),
        ('{"name": "run", "arguments": "x=1"}', "arguments are no JSON object"),
        ('{"name": "fly", "arguments": {}}', "'fly' is not on offer"),
        ('{"x": ' + "[" * 50_000, "no valid JSON"),
    ],
)
def test_malformed_call_is_kept_as_it_stood(body: str, error: str) -> None:
    good = tagged(call("cut"))
    answer = parse_answer(f"a {OPENING}{body}{CLOSING} b {good}", names={"run", "cut"})
    (bad,) = answer.invalid
    assert (bad.text, answer.text) == (body, "a  b ")
    assert error in bad.error
    assert answer.calls == (ParsedCall("cut", {}),)


def test_call_cut_off_by_the_token_budget_is_kept() -> None:
    body = '{"name": "run", "arguments": {"to": "the e'
    assert parse_answer(f"Wait. {OPENING}{body}").invalid[0].text == body


def test_invalid_call_keeps_the_name_it_has() -> None:
    assert parse_answer(tagged({"name": "run", "arguments": 3})).invalid[0].name == "run"


def test_forced_answer_is_one_call() -> None:
    assert parse_answer(json.dumps(call(x=1)), forced=True).calls == (ParsedCall("run", {"x": 1}),)
    cut = parse_answer('{"name": "run", "argu', forced=True)
    assert cut.calls == ()
    assert cut.invalid[0].text == '{"name": "run", "argu'


def test_forced_refusal_is_text() -> None:
    answer = parse_answer('{"refusal": "Too steep."}', forced=True)
    assert answer == ParsedAnswer("Too steep.", refusal="Too steep.")
    odd = parse_answer('{"refusal": 3}', forced=True)
    assert (odd.refusal, len(odd.invalid)) == (None, 1)


PIECES = st.sampled_from(
    [
        OPENING,
        CLOSING,
        "{",
        "}",
        '"',
        "name",
        ":",
        " ",
        "text",
        *map(json.dumps, [call(), call("z")]),
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join), st.booleans())
def test_nothing_is_ever_lost(text: str, forced: bool) -> None:
    answer = parse_answer(text, forced=forced)
    if forced:
        assert len(answer.calls) + len(answer.invalid) == 1
        return
    assert len(answer.calls) + len(answer.invalid) <= text.count(OPENING)
    kept = answer.text + "".join(bad.text for bad in answer.invalid)
    kept += "".join(json.dumps(call(good.name)) for good in answer.calls)
    for word in ("text", "name"):
        assert kept.count(word) >= text.count(word)


@given(st.text(), st.dictionaries(st.text(max_size=5), st.text(max_size=8)), st.text())
def test_written_calls_are_read_back(before: str, arguments: dict[str, str], after: str) -> None:
    before, after = before.replace(OPENING, ""), after.replace(OPENING, "")
    answer = parse_answer(f"{before}{tagged(call(**{}) | {'arguments': arguments})}{after}")
    assert answer.calls == (ParsedCall("run", arguments),)
    assert answer.text == (before + after if (before + after).strip() else "")


@pytest.mark.parametrize("choice", [None, False, "auto", "none"])
def test_free_choice_has_no_schema(choice: Any) -> None:
    assert tool_schema(TOOLS, choice) is None


def test_tools_keep_their_definitions_apart() -> None:
    def parameters(kind: str) -> dict[str, Any]:
        place = {"properties": {"p": {"$ref": "#/$defs/P"}}, "type": "object"}
        return {**place, "$defs": {"P": {"type": kind}}}

    tools = [
        {"type": "function", "function": {"name": name, "parameters": parameters(kind)}}
        for name, kind in (("run", "string"), ("cut", "integer"))
    ]
    schema = tool_schema(tools, "any")
    assert schema is not None
    for i, kind in enumerate(("string", "integer")):
        own = schema["$defs"][f"arguments_{i}"]
        assert own["properties"]["p"]["$ref"] == f"#/$defs/arguments_{i}/$defs/P"
        assert own["$defs"]["P"] == {"type": kind}


@pytest.mark.parametrize("choice", ["fly", {"type": "function", "function": {"name": "fly"}}])
def test_unknown_tool_is_an_error_that_lists_the_bound_ones(choice: Any) -> None:
    with pytest.raises(ConstraintError, match="'fly' is not on offer.*'cut', 'run'"):
        tool_schema(TOOLS, choice)
    with pytest.raises(ConstraintError, match="not on offer"):
        tool_schema([], "any")


def test_records_are_plain_and_comparable() -> None:
    assert InvalidCall("x", "y") == InvalidCall("x", "y", None)
