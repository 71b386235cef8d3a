"""Arguments of constructors and calls: a misspelt one is an error, with the name that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, cast

from safecode_guard.errors import PolicyError, UnknownArgument, UnsupportedGeneration, listed

STANDARD: Final = frozenset(
    {"temperature", "max_tokens", "timeout", "stop", "max_retries", "api_key"}
)
"""LangChain's own constructor arguments, which every chat model takes, of use to it or not."""

CALL: Final = frozenset(
    {
        "stop", "stop_sequences", "temperature", "top_p", "top_k", "repetition_penalty", "seed",
        "max_tokens", "max_completion_tokens", "num_beams", "num_beam_groups",
        "num_return_sequences", "n", "tools", "tool_choice", "parallel_tool_calls", "strict",
        "response_format", "allow_refusal", "safecode_trace", "cache_scope", "model", "timeout",
        "max_retries", "api_key", "stream", "stream_usage",
    }
)  # fmt: skip
"""Options of one call to a model in this process."""

_NUMBERS: Final[Mapping[str, tuple[type, ...]]] = {
    "temperature": (int, float), "top_p": (int, float), "repetition_penalty": (int, float),
    "top_k": (int,), "seed": (int,), "max_tokens": (int,), "max_completion_tokens": (int,),
}  # fmt: skip
_POSITIVE: Final = ("top_p", "top_k", "repetition_penalty", "max_tokens", "max_completion_tokens")

_TRACING: Final = "ls_"  # what LangChain's own helpers add for traces


def require_known(what: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Check the names of some arguments.

    Args:
        what: Whose arguments they are, for the error.
        given: The arguments.
        known: Every name that is one.

    Raises:
        UnknownArgument: For the first that is none; names the one that was probably meant.
    """
    for name in given:
        if name in known or name.startswith(_TRACING):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        raise UnknownArgument(
            f"{what} has no argument {name!r}.",
            hint=f"Did you mean {close[0]!r}?" if close else f"It takes {listed(known)}.",
        )


def require_names(kind: str, given: Iterable[object], known: Sequence[str]) -> None:
    """Check the names of a kind, such as stages.

    Raises:
        PolicyError: If some are none.
    """
    unknown = [name for name in given if not (isinstance(name, str) and name in known)]
    if unknown:
        raise PolicyError(
            f"Unknown {kind} {', '.join(map(repr, unknown))}.", hint=f"Use {', '.join(known)}."
        )


def require_values(options: Mapping[str, Any]) -> None:
    """Check the values of one call's options, as the constructor checks those of its fields.

    Raises:
        UnsupportedGeneration: For the first that makes no sense.
    """
    for name, kinds in _NUMBERS.items():
        value = options.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise _senseless(name, value)
        number = cast("float", value)
        if (number < 0 and name != "seed") or (name in _POSITIVE and number <= 0):
            raise _senseless(name, value)
    tools, form = options.get("tools"), options.get("response_format")
    if tools is not None and not (isinstance(tools, list | tuple) and all(map(_is_tool, tools))):
        raise _senseless("tools", tools)
    if form is not None and not isinstance(form, Mapping):
        raise _senseless("response_format", form)


def require_stops(stops: Any) -> None:
    """Check the texts at which an answer is to stop.

    Raises:
        UnsupportedGeneration: If they are no texts.
    """
    if isinstance(stops, str) or stops is None:
        return
    if not isinstance(stops, list | tuple) or not all(isinstance(each, str) for each in stops):
        raise _senseless("stop", stops)


def _is_tool(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    return isinstance(function, Mapping) and isinstance(function.get("name"), str)


def _senseless(name: str, value: Any) -> UnsupportedGeneration:
    return UnsupportedGeneration(
        f"The option {name!r} of a call cannot be {value!r:.80}.",
        hint="See what LangChain's chat models take under this name.",
    )
