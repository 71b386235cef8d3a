"""What form of answer a call asks for, read from its options."""

import pytest

from safecode_guard.errors import ConstraintError
from safecode_guard.output.request import OutputForm, constraints, is_forced
from safecode_guard.testing import ByteVocabulary

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}
WALK = {"type": "function", "function": {"name": "walk_to", "parameters": SCHEMA}}


def form(**options) -> OutputForm:
    return OutputForm.from_options(options)


def test_without_options_the_answer_is_free():
    assert form() == OutputForm()
    assert not form().forced


@pytest.mark.parametrize(
    "given",
    [
        {"schema": SCHEMA},
        {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
    ],
)
def test_openais_forms_of_a_schema_are_read(given):
    found = form(response_format=given)
    assert (found.schema, found.forced, found.forced_tool) == (SCHEMA, True, False)


def test_json_without_a_schema_is_any_object_and_text_is_free():
    assert form(response_format={"type": "json_object"}).schema == {"type": "object"}
    assert not form(response_format={"type": "text"}).forced
    assert not form(response_format=None).forced


@pytest.mark.parametrize(
    ("choice", "read"),
    [
        (None, None),
        ("auto", None),
        (False, None),
        ("any", "any"),
        ("required", "any"),
        (True, "any"),
        ("walk_to", "walk_to"),
        ({"type": "function", "function": {"name": "walk_to"}}, "walk_to"),
    ],
)
def test_choices_of_tools_are_read(choice, read):
    found = form(tools=[WALK], tool_choice=choice)
    assert (found.tools, found.choice, found.forced_tool) == ((WALK,), read, read is not None)


def test_the_choice_none_offers_no_tools_and_no_tools_leave_no_choice():
    assert form(tools=[WALK], tool_choice="none") == OutputForm()
    assert form(tool_choice="any") == OutputForm()


def test_a_refusal_branch_is_asked_for():
    assert form(allow_refusal=True).allow_refusal
    assert not form().allow_refusal


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(
    "options", [{"response_format": {"schema": SCHEMA}}, {"tools": [WALK], "tool_choice": "any"}]
)
def test_a_forced_form_has_a_grammar_and_on_demand_its_refusal_branch(options, allow):
    answer, refusal = constraints(ByteVocabulary(), form(**options, allow_refusal=allow))
    mask = answer(100).mask()
    assert mask[ord("{")]
    assert not mask[ord("x")]
    assert (refusal is not None) is allow


def test_a_free_form_has_none_and_a_tool_that_is_not_there_is_refused():
    assert constraints(ByteVocabulary(), form(tools=[WALK])) == (None, None)
    with pytest.raises(ConstraintError, match="fly"):
        constraints(ByteVocabulary(), form(tools=[WALK], tool_choice="fly"))


@pytest.mark.parametrize(
    ("options", "forced"),
    [
        ({}, False),
        ({"tools": [WALK]}, False),
        ({"tool_choice": "auto"}, False),
        ({"tool_choice": {"type": "auto"}}, False),
        ({"tool_choice": "none"}, False),
        ({"tool_choice": "any"}, True),
        ({"tool_choice": "walk_to"}, True),
        ({"tool_choice": {"type": "tool", "name": "walk_to"}}, True),
        ({"response_format": {"type": "json_object"}}, True),
    ],
)
def test_forms_of_other_providers_are_told(options, forced):
    assert is_forced(options) is forced
