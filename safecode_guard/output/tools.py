"""Tool calls: the schema that forces one, and reading them out of generated text."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from typing import Any, Final

from safecode_guard.errors import ConstraintError, listed
from safecode_guard.models.protocol import Tool
from safecode_guard.output.schemas import REFUSAL_KEY, Schema, embed

OPENING: Final = "<tool_call>"
CLOSING: Final = "</tool_call>"
_TAGS: Final = ((CLOSING, len(CLOSING)), (OPENING, 0))
"""The tags that end an unreadable call, and how much of them belongs to it."""


@dataclass(frozen=True)
class ParsedCall:
    """A tool call that could be read."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class InvalidCall:
    """What was meant as a tool call and could not be read; ``text`` is what stood there."""

    text: str
    error: str
    name: str | None = None


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer taken apart; nothing of it is lost."""

    text: str
    """The free text around the calls."""
    calls: tuple[ParsedCall, ...] = ()
    invalid: tuple[InvalidCall, ...] = ()
    refusal: str | None = None
    """The model's words, where it took the refusal branch of a forced grammar."""


def tool_schema(tools: Sequence[Tool], choice: Any) -> Schema | None:
    """Return the JSON schema of one call, ``{"name": ..., "arguments": {...}}``, under a choice.

    Args:
        tools: The tools on offer, in OpenAI's form.
        choice: ``any``, ``required`` or True: one of them; a name, or OpenAI's
            ``{"type": "function", "function": {"name": ...}}``: that one; ``auto``, ``none``,
            False or None: nothing is forced, so there is no schema.

    Raises:
        ConstraintError: If a forced tool is not on offer.
    """
    if choice in (None, False, "auto", "none"):
        return None
    functions = {tool["function"]["name"]: tool["function"] for tool in tools}
    wanted = list(functions)
    if choice is not True and choice not in ("any", "required"):
        wanted = [choice["function"]["name"] if isinstance(choice, Mapping) else str(choice)]
    if not wanted or wanted[0] not in functions:
        raise ConstraintError(
            f"Tool {wanted[0] if wanted else choice!r} is not on offer.",
            hint=f"Bound tools: {listed(functions)}.",
        )
    parameters = {
        f"arguments_{i}": embed(_parameters(functions[name]), f"arguments_{i}")
        for i, name in enumerate(wanted)
    }
    calls = [
        _call_schema(name, reference) for name, reference in zip(wanted, parameters, strict=True)
    ]
    return {**(calls[0] if len(calls) == 1 else {"anyOf": calls}), "$defs": parameters}


def parse_answer(
    text: str, *, forced: bool = False, names: Collection[str] | None = None
) -> ParsedAnswer:
    """Return the text and the tool calls of a generated answer.

    Calls are read from ``<tool_call>{...}</tool_call>``, any number of them; with ``forced`` the
    whole text is one call in JSON. What cannot be read becomes an `InvalidCall` with its text.

    Args:
        text: What the model wrote.
        forced: It wrote under a grammar of `tool_schema`.
        names: Tools that may be called; others are invalid. None: any.
    """
    if forced:
        return _parse_forced(text, names)
    free: list[str] = []
    found: list[ParsedCall | InvalidCall] = []
    at = 0
    while (opening := text.find(OPENING, at)) >= 0:
        free.append(text[at:opening])
        body = opening + len(OPENING)
        end, after = _call_end(text, body)
        found.append(_read_call(text[body:end], names))
        at = after
    free.append(text[at:])
    return ParsedAnswer("".join(free) if "".join(free).strip() else "", *_sorted(found))


def _parse_forced(text: str, names: Collection[str] | None) -> ParsedAnswer:
    try:
        data = _loads(text)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict) and set(data) == {REFUSAL_KEY} and isinstance(data[REFUSAL_KEY], str):
        return ParsedAnswer(data[REFUSAL_KEY], refusal=data[REFUSAL_KEY])
    return ParsedAnswer("", *_sorted([_read_call(text, names)]))


def _call_end(text: str, body: int) -> tuple[int, int]:
    """Return where a call's body ends, and where the text goes on after it.

    The JSON value itself tells, so that a tag inside a string ends nothing; its closing tag may be
    missing before another call or the end of the text. Where the value is unreadable, or followed
    by something else, the body runs to the next tag.
    """
    start = body + len(text[body:]) - len(text[body:].lstrip())
    try:
        _, end = JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        end = body
    rest = text[end:].lstrip()
    after = len(text) - len(rest)
    if end > body and rest.startswith(CLOSING):
        return end, after + len(CLOSING)
    if end > body and (not rest or rest.startswith(OPENING)):
        return end, end
    tags = [(at, at + skip) for tag, skip in _TAGS if (at := text.find(tag, end)) >= 0]
    return min(tags, default=(len(text), len(text)))


def _read_call(body: str, names: Collection[str] | None) -> ParsedCall | InvalidCall:
    raw = body.strip()
    try:
        data = _loads(raw)
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos}" if isinstance(error, JSONDecodeError) else ""
        return InvalidCall(raw, f"The call is no valid JSON{where}.")
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        return InvalidCall(raw, "The call is no JSON object with a name.")
    name = data["name"]
    if names is not None and name not in names:
        return InvalidCall(raw, f"Tool {name!r} is not on offer.", name)
    arguments = _arguments(data)
    if arguments is None:
        return InvalidCall(raw, "The call's arguments are no JSON object.", name)
    return ParsedCall(name, arguments)


def _arguments(data: dict[str, Any]) -> dict[str, Any] | None:
    """Return a call's arguments; some models say ``parameters``, some write JSON in a string."""
    given = data.get("arguments", data.get("parameters", {}))
    if isinstance(given, str):
        try:
            given = _loads(given)
        except (ValueError, RecursionError):
            return None
    return given if isinstance(given, dict) else None


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _sorted(
    found: Sequence[ParsedCall | InvalidCall],
) -> tuple[tuple[ParsedCall, ...], tuple[InvalidCall, ...]]:
    calls = tuple(call for call in found if isinstance(call, ParsedCall))
    return calls, tuple(call for call in found if isinstance(call, InvalidCall))


def _parameters(function: Mapping[str, Any]) -> Mapping[str, Any]:
    return function.get("parameters") or {"type": "object", "properties": {}}


def _call_schema(name: str, reference: str) -> Schema:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": {"$ref": f"#/$defs/{reference}"}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
