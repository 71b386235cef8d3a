from __future__ import annotations

import pytest

from safecode_guard.errors import ConstraintError
from safecode_guard.output.schemas import embed, prepare_schema, with_refusal

STRING = {"type": "string"}


def test_declared_objects_are_closed_everywhere() -> None:
    inner = {"type": "object", "properties": {"b": STRING}, "additionalProperties": True}
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": inner}, "c": {"$ref": "#/$defs/c"}},
        "$defs": {"c": {"anyOf": [{"properties": {}, "type": "object"}, {"type": "null"}]}},
    }
    done = prepare_schema(schema, max_string=9)
    assert done["additionalProperties"] is False
    assert done["properties"]["a"]["items"]["additionalProperties"] is False
    assert done["$defs"]["c"]["anyOf"][0]["additionalProperties"] is False


def test_open_maps_stay_open_and_their_values_are_bounded() -> None:
    done = prepare_schema({"type": "object", "additionalProperties": STRING}, max_string=9)
    assert done["additionalProperties"] == {"type": "string", "maxLength": 9}
    assert prepare_schema({"type": "object"}, max_string=9) == {"type": "object"}


def test_parts_of_an_all_of_must_let_each_other_through() -> None:
    parts = [{"type": "object", "properties": {name: STRING}} for name in "ab"]
    done = prepare_schema({"allOf": parts}, max_string=9)
    assert not any("additionalProperties" in part for part in done["allOf"])
    single = prepare_schema({"allOf": parts[:1]}, max_string=9)
    assert single["allOf"][0]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("string", "length"),
    [
        ({"type": "string"}, 9),
        ({"type": ["string", "null"]}, 9),
        ({"type": "string", "minLength": 20}, 20),
        ({"type": "string", "maxLength": 500}, 500),
        ({"type": "string", "enum": ["a"]}, None),
        ({"type": "string", "pattern": "^a+$"}, None),
        ({"type": "string", "format": "date"}, None),
        ({"type": "integer"}, None),
    ],
)
def test_strings_are_bounded_where_nothing_else_bounds_them(
    string: dict[str, object], length: int | None
) -> None:
    assert prepare_schema(string, max_string=9).get("maxLength") == length


def test_integers_are_bounded_only_if_asked() -> None:
    schema = {"type": "integer", "minimum": 3}
    assert prepare_schema(schema, max_string=9) == schema
    assert prepare_schema(schema, max_string=9, max_integer=50) == {**schema, "maximum": 50}
    assert prepare_schema({"type": "integer"}, max_string=9, max_integer=5)["minimum"] == -5


def test_properties_and_values_named_like_keywords_are_left_alone() -> None:
    schema = {
        "type": "object",
        "properties": {"type": STRING, "properties": {"type": "integer"}, "items": STRING},
        "default": {"type": "string", "properties": {}},
        "examples": [{"type": "string"}],
    }
    done = prepare_schema(schema, max_string=9)
    assert (done["default"], done["examples"]) == (schema["default"], schema["examples"])
    assert set(done["properties"]) == {"type", "properties", "items"}
    assert done["properties"]["properties"] == {"type": "integer"}


def test_input_is_not_changed() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    before = repr(schema)
    prepare_schema(schema, max_string=9)
    with_refusal(schema)
    assert repr(schema) == before


def test_embedded_references_follow_their_root() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.org/x",
        "properties": {"a": {"$ref": "#/$defs/A"}, "self": {"$ref": "#"}, "$ref": STRING},
        "$defs": {"A": {"$ref": "https://example.org/y"}},
    }
    done = embed(schema, "answer")
    assert done["properties"]["a"] == {"$ref": "#/$defs/answer/$defs/A"}
    assert done["properties"]["self"] == {"$ref": "#/$defs/answer"}
    assert done["properties"]["$ref"] == STRING
    assert done["$defs"]["A"] == {"$ref": "https://example.org/y"}
    assert not {"$schema", "$id"} & done.keys()


def test_refusal_needs_its_name_for_itself() -> None:
    with pytest.raises(ConstraintError, match="allow_refusal"):
        with_refusal({"type": "object", "properties": {"refusal": STRING}})
