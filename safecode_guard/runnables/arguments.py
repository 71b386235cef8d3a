"""Arguments of constructors and calls: a misspelt one is an error, with the name that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, Final

from safecode_guard.errors import UnknownArgument

STANDARD: Final = frozenset(
    {"temperature", "max_tokens", "timeout", "stop", "max_retries", "api_key"}
)
"""LangChain's own constructor arguments, which every chat model takes, of use to it or not."""

CALL: Final = frozenset(
    {
        "stop", "stop_sequences", "temperature", "top_p", "top_k", "repetition_penalty", "seed",
        "max_tokens", "max_completion_tokens", "num_beams", "num_beam_groups",
        "num_return_sequences", "n", "tools", "tool_choice", "parallel_tool_calls", "strict",
        "response_format", "allow_refusal", "safecode_trace", "model", "timeout", "max_retries",
        "api_key", "stream", "stream_usage",
    }
)  # fmt: skip
"""Options of one call to a model in this process."""

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
            hint=f"Did you mean {close[0]!r}?" if close else f"It takes {sorted(known)}.",
        )
