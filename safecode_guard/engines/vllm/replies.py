"""What a server says, whole or piece by piece, as far as it is looked at."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from safecode_guard.errors import ModelError
from safecode_guard.models.protocol import FinishReason
from safecode_guard.output.tools import CLOSING, OPENING

_TOKEN: Final = "token_id:"


@dataclass(frozen=True)
class Reply:
    """An answer, or a piece of one."""

    tokens: tuple[int, ...] = ()
    """Its tokens, a stop token at its end included."""
    finish: FinishReason | None = None
    """Why the answer ended; None: this is a piece, and others follow."""
    prompt_tokens: int = 0
    said: str | None = None
    """Where tools are on offer: the text and the calls that the server read, in the form in which
    `output.tools` reads them."""


def whole_reply(data: Any, *, tools: bool = False, forced: bool = False) -> Reply:
    """Return the answer of one completion.

    Args:
        data: The reply's JSON, of ``/v1/chat/completions`` or ``/inference/v1/generate``.
        tools: Tools were on offer, which the server reads out of the text.
        forced: The answer had to be a call.

    Raises:
        ModelError: If it is none.
    """
    try:
        choice = data["choices"][0]
        return Reply(
            _tokens(choice["token_ids"]),
            _finish(choice.get("finish_reason")) or "stop",
            int((data.get("usage") or {}).get("prompt_tokens", 0)),
            _said(choice["message"], forced=forced) if tools else None,
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable() from error


def piece_of(data: Any) -> Reply:
    """Return a piece of a streamed completion; raises as `whole_reply` does."""
    try:
        if "error" in data:
            raise ModelError("The server broke an answer off.", hint="Look into its log.")
        usage = int((data.get("usage") or {}).get("prompt_tokens", 0))
        choices = data["choices"]
        if choices == []:
            return Reply(prompt_tokens=usage)
        choice = choices[0]
        return Reply(
            _tokens(choice.get("token_ids") or ()), _finish(choice.get("finish_reason")), usage
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable() from error


def label_scores(data: Any, tokens: Iterable[int]) -> dict[int, float]:
    """Return the log-probabilities of the tokens that were asked for, where the answer begins.

    Raises:
        ModelError: If one is missing, or is no number.
    """
    try:
        first = data["choices"][0]["logprobs"]["content"][0]
        found = {
            int(entry["token"].removeprefix(_TOKEN)): float(entry["logprob"])
            for entry in (first, *first["top_logprobs"])
            if entry["token"].startswith(_TOKEN)
        }
        scores = {token: found[token] for token in tokens}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable() from error
    if any(math.isnan(score) for score in scores.values()):
        raise _unreadable()
    return scores


def _tokens(ids: Sequence[Any]) -> tuple[int, ...]:
    if not all(type(token) is int and token >= 0 for token in ids):
        raise ValueError("no token ids")
    return tuple(ids)


def _finish(reason: str | None) -> FinishReason | None:
    if reason is None:
        return None
    if reason in ("stop", "tool_calls"):
        return "stop"
    if reason == "length":
        return "length"
    raise ModelError(
        f"The server ended an answer for the reason {reason!r}.", hint="Look into its log."
    )


def _said(message: Mapping[str, Any], *, forced: bool) -> str:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    written = [_call(function["name"], function["arguments"]) for function in calls]
    if forced and len(written) == 1:
        return written[0]
    return (message.get("content") or "") + "".join(f"{OPENING}{call}{CLOSING}" for call in written)


def _call(name: str, arguments: str) -> str:
    """Return a call as models write it; arguments that are no JSON stay as they are, unreadable."""
    return f'{{"name": {json.dumps(name)}, "arguments": {arguments or "{}"}}}'


def _unreadable() -> ModelError:
    return ModelError(
        "The server's reply is none of a vLLM server.", hint="Check base_url, and its version."
    )
