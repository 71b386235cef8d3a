from __future__ import annotations

import inspect
import re

import pytest

import safecode_guard
from safecode_guard import errors
from safecode_guard.errors import (
    GuardError,
    ImageError,
    LogitsUnavailable,
    PolicyError,
    TurnBlocked,
    UnknownArgument,
    UnreadableCall,
    UnreadableImage,
)
from safecode_guard.verdict import PolicyRef, Verdict

ALL = [
    member
    for _, member in inspect.getmembers(errors, inspect.isclass)
    if issubclass(member, Exception)
]


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([ │├└─]*)([A-Z]\w+)(\s{2,}|$)", line)
        if not found or not line.startswith("    "):
            continue
        depth, name = len(found[1]), found[2]
        above = [entry for entry in above if entry[0] < depth]
        if above:
            parents[name] = above[-1][1]
        above.append((depth, name))
    coded = {
        error.__name__: next(b.__name__ for b in error.__bases__ if issubclass(b, GuardError))
        for error in ALL
        if error is not GuardError
    }
    assert parents == coded


def test_every_error_is_public() -> None:
    assert {error.__name__ for error in ALL} <= set(safecode_guard.__all__)


def test_an_error_ends_with_its_hint() -> None:
    error = GuardError("It broke.", hint="Mend it.")
    assert str(error) == "It broke. Mend it."
    assert (error.message, error.hint) == ("It broke.", "Mend it.")
    assert str(GuardError("It broke.")) == "It broke."


def test_an_image_error_says_where() -> None:
    error = UnreadableImage("No image.", message_index=2, block_index=0, hint="Send a PNG.")
    assert "(message 2, block 0)" in str(error)
    assert (error.message_index, error.block_index) == (2, 0)
    assert isinstance(error, ImageError)


def test_a_blocked_turn_carries_its_verdict() -> None:
    verdict = Verdict(label="unsafe", action="block", policy=PolicyRef(name="p", digest="d"))
    error = TurnBlocked(verdict)
    assert error.verdict is verdict
    assert "'unsafe'" in str(error)
    assert "on_block" in str(error)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (LogitsUnavailable, TypeError),
        (PolicyError, ValueError),
        (UnknownArgument, TypeError),
        (UnreadableCall, ValueError),
    ],
)
def test_some_errors_are_builtin_errors_too(
    error: type[GuardError], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)
