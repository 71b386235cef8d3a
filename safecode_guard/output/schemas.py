"""JSON schemas made fit to be followed token by token: closed, bounded, with local references.

What is made here only narrows a schema: whatever follows the prepared one follows the original.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from safecode_guard.errors import ConstraintError

Schema = dict[str, Any]

REFUSAL_KEY: Final = "refusal"
_MAPS: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES: Final = (
    *("items", "additionalItems", "additionalProperties", "contains", "propertyNames"),
    *("not", "if", "then", "else", "unevaluatedItems", "unevaluatedProperties"),
)
_GIVEN: Final = frozenset({"enum", "const", "maxLength", "format", "pattern"})


def prepare_schema(
    schema: Mapping[str, Any], *, max_string: int, max_integer: int | None = None
) -> Schema:
    """Return a schema whose objects are closed and whose strings are bounded.

    Objects that declare their properties take no others. Strings without a length, pattern,
    format or choice of their own get ``max_string`` as their maximal length; integers are bounded
    to ``[-max_integer, max_integer]`` only if that is given. An object that declares nothing
    stays open, and schemas that are joined by ``allOf`` stay open, since each must let the
    others' properties through.
    """
    joined = any(len(part.get("allOf", ())) > 1 for part in _parts(dict(schema)))

    def fit(part: Schema) -> Schema:
        fitted = dict(part)
        if not joined and "properties" in part and part.get("additionalProperties", True) is True:
            fitted["additionalProperties"] = False
        if "string" in _types(part) and not _GIVEN & part.keys():
            fitted["maxLength"] = max(max_string, part.get("minLength", 0))
        if max_integer is not None and "integer" in _types(part) and not _GIVEN & part.keys():
            fitted.setdefault("minimum", -max_integer)
            fitted.setdefault("maximum", max_integer)
        return fitted

    return _map(dict(schema), fit)


def embed(schema: Mapping[str, Any], name: str) -> Schema:
    """Return a schema that can stand under ``$defs/<name>`` of another, references included.

    A reference into the schema's own root (``#/$defs/X``, ``#``) is made to point there.
    """
    root = f"#/$defs/{name}"

    def point(part: Schema) -> Schema:
        target = part.get("$ref")
        if target == "#" or (isinstance(target, str) and target.startswith("#/")):
            return {**part, "$ref": root + target[1:]}
        return part

    embedded = _map(dict(schema), point)
    return {key: value for key, value in embedded.items() if key not in ("$schema", "$id")}


def with_refusal(schema: Mapping[str, Any]) -> Schema:
    """Return a schema that also allows ``{"refusal": "..."}`` instead.

    Raises:
        ConstraintError: If the schema has a property of that name, so that an answer would not
            show which of the two it is.
    """
    if REFUSAL_KEY in schema.get("properties", {}):
        raise ConstraintError(
            f"The schema has a property {REFUSAL_KEY!r}, which allow_refusal needs for itself.",
            hint="Rename the property, or do without allow_refusal.",
        )
    return {
        "anyOf": [{"$ref": "#/$defs/answer"}, refusal_schema()],
        "$defs": {"answer": embed(schema, "answer")},
    }


def refusal_schema() -> Schema:
    """Return the schema of the refusal branch alone."""
    return {
        "type": "object",
        "properties": {REFUSAL_KEY: {"type": "string", "minLength": 1}},
        "required": [REFUSAL_KEY],
        "additionalProperties": False,
    }


def _types(part: Schema) -> tuple[Any, ...]:
    kind = part.get("type")
    return tuple(kind) if isinstance(kind, list) else (kind,)


def _map(part: Schema, edit: Callable[[Schema], Schema]) -> Schema:
    """Apply an edit to a schema and all its subschemas, and to nothing else in it."""
    done = dict(part)
    for key in _MAPS:
        if isinstance(part.get(key), Mapping):
            done[key] = {name: _map_any(sub, edit) for name, sub in part[key].items()}
    for key in (*_LISTS, *_SINGLES):
        if isinstance(part.get(key), list):
            done[key] = [_map_any(sub, edit) for sub in part[key]]
        elif key in part:
            done[key] = _map_any(part[key], edit)
    return edit(done)


def _map_any(part: Any, edit: Callable[[Schema], Schema]) -> Any:
    # True and False are schemas as well.
    return _map(dict(part), edit) if isinstance(part, Mapping) else part


def _parts(schema: Schema) -> list[Schema]:
    """Return a schema and all its subschemas."""
    found: list[Schema] = []

    def note(part: Schema) -> Schema:
        found.append(part)
        return part

    _map(schema, note)
    return found
