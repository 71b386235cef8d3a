"""What an agent's state remembers of its verdicts.

A verdict is kept beside a seal: the hash of the verdict and of what was asked. It holds only for
the same question, under the same policy, and as long as nobody has written in it; otherwise the
question is asked again. Without a key (`SEAL_KEY`) whoever can write into a state can seal, too.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, NotRequired

from langchain.agents.middleware.types import AgentState, OmitFromInput, PrivateStateAttr
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from pydantic import ValidationError
from typing_extensions import TypedDict

from safecode_guard.errors import PolicyError
from safecode_guard.judges.protocol import canonical_json
from safecode_guard.taxonomy import Stage
from safecode_guard.verdict import STATE_KEY, Verdict
from safecode_guard_langchain.outputs import message_of

VERDICTS: Final = STATE_KEY
PASSED: Final = "safecode_passed"
HELD: Final = "safecode_held"
SHOWN: Final = "safecode_shown"

SEAL_KEY: Final = "SAFECODE_SEAL_KEY"
"""The variable of the environment that holds a secret: with it nobody else can seal a verdict."""

MOST_VERDICTS: Final = 512
"""Verdicts that a state keeps: the newest. What falls out is judged again if it is met again."""

_SEAL: Final = "seal"
_QUESTION: Final = "question"


def merge_verdicts(
    left: Mapping[str, Any] | None, right: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Merge verdicts by what they are about: of two on one subject the newest stays.

    Example:
        >>> merge_verdicts({"a": {"created_at": "2"}}, {"a": {"created_at": "1"}})
        {'a': {'created_at': '2'}}
    """
    merged = dict(left or {})
    for key, entry in (right or {}).items():
        if key in merged and _made_at(merged[key]) > _made_at(entry):
            continue
        merged.pop(key, None)  # what is new stands last
        merged[key] = entry
    for key in list(merged)[: max(0, len(merged) - MOST_VERDICTS)]:
        del merged[key]
    return merged


def merge_passed(left: Mapping[str, str] | None, right: Mapping[str, str] | None) -> dict[str, str]:
    """Merge what has passed."""
    return {**(left or {}), **(right or {})}


def merge_held(left: Mapping[str, Any] | None, right: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge what is held for review; None takes an entry away."""
    merged = {**(left or {}), **(right or {})}
    return {key: held for key, held in merged.items() if held is not None}


def merge_shown(left: Mapping[str, Any] | None, right: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge what each guard saw the model being shown: of each the newest stays."""
    return {**(left or {}), **(right or {})}


class VerdictState(TypedDict):
    """The keys that a graph's state needs, so that its guards remember what they found.

    Example:
        >>> from langgraph.graph import MessagesState
        >>> class State(MessagesState, VerdictState): ...
    """

    safecode_verdicts: NotRequired[Annotated[dict[str, Any], merge_verdicts]]
    """Verdicts as plain data, by what they are about; `verdicts_in` reads them."""
    safecode_passed: NotRequired[Annotated[dict[str, str], merge_passed]]
    """Hashes of pictures, requests and answers that have passed, and the policy they passed."""
    safecode_held: NotRequired[Annotated[dict[str, Any], merge_held]]
    """What tools returned and a human has yet to see."""


class GuardState(AgentState[Any]):
    """The same keys in an agent's state: nobody outside can hand verdicts in."""

    safecode_verdicts: NotRequired[Annotated[dict[str, Any], OmitFromInput, merge_verdicts]]
    safecode_passed: NotRequired[Annotated[dict[str, str], PrivateStateAttr, merge_passed]]
    safecode_held: NotRequired[Annotated[dict[str, Any], PrivateStateAttr, merge_held]]
    safecode_shown: NotRequired[Annotated[dict[str, Any], PrivateStateAttr, merge_shown]]
    """Pictures that the model was shown for its newest answer, and that no message holds."""


def verdicts_in(state: Any, stage: Stage | None = None) -> tuple[Verdict, ...]:
    """Return the verdicts that a state holds, the newest last.

    Args:
        state: A graph's state, of any form.
        stage: Only those of this stage.

    Example:
        >>> verdicts_in({"messages": []})
        ()
    """
    read = (_read(entry) for entry in entries_of(state).values())
    return tuple(v for v in read if v is not None and stage in (None, v.stage))


def sealed(verdict: Verdict, question: str) -> dict[str, Any]:
    """Return a verdict as plain data, bound to what was asked."""
    data = {**verdict.to_json(), _QUESTION: question}
    return {**data, _SEAL: _seal(data)}


def unsealed(entry: Any, question: str | None = None) -> Verdict | None:
    """Return a verdict if it is as it was written, and an answer to this question; None: to any."""
    if not isinstance(entry, Mapping):
        return None
    data = {key: value for key, value in entry.items() if key != _SEAL}
    if entry.get(_SEAL) != _seal(data) or question not in (None, entry.get(_QUESTION)):
        return None
    return _read(entry)


def resealed(entry: Mapping[str, Any], verdict: Verdict) -> dict[str, Any]:
    """Return an entry with a verdict that has been reviewed."""
    return sealed(verdict, str(entry[_QUESTION]))


def entries_of(state: Any, name: str = VERDICTS) -> Mapping[str, Any]:
    """Return what a state holds under one of the guard's keys, {} if it has no such key."""
    found = state.get(name) if isinstance(state, Mapping) else getattr(state, name, None)
    return found if isinstance(found, Mapping) else {}


def note(updates: dict[str, Any], name: str, values: Mapping[str, Any]) -> None:
    """Add values to what is to be written to the state under one of the guard's keys."""
    if values:
        updates.setdefault(name, {}).update(values)


def remembers(state: Any) -> bool:
    """Return whether a state has a place for verdicts."""
    return VERDICTS in state if isinstance(state, Mapping) else hasattr(state, VERDICTS)


def messages_in(state: Any) -> list[BaseMessage]:
    """Return the messages of a state: a list of them, a mapping, or an object that has some."""
    given = _given_in(state)
    found: Iterable[Any] = given if isinstance(given, list | tuple) else ()
    if all(issubclass(kind, BaseMessage) for kind in set(map(type, found))):
        return list(found)
    return [message for each in found if (message := _message_of(each))]


def conversation_of(state: Any, call_id: Any) -> list[BaseMessage]:
    """Return the messages of a state whose last answer makes a call, under whatever key.

    Nodes may keep their messages under a key of their own. [] if there is no conversation: no
    messages, or the one that makes the call alone.
    """
    found = [messages_in(state)]
    if not _makes(found[0], call_id) and not isinstance(state, list | tuple):
        others = [messages_in(value) for value in _values(state) if isinstance(value, list)]
        found = [each for each in others if _makes(each, call_id)] or found
    return found[0] if len(found[0]) > 1 else []


def _makes(messages: list[BaseMessage], call_id: Any) -> bool:
    answer = next((m for m in reversed(messages) if isinstance(m, AIMessage)), None)
    return answer is not None and any(call["id"] == call_id for call in answer.tool_calls)


def _values(state: Any) -> list[Any]:
    given = state if isinstance(state, Mapping) else getattr(state, "__dict__", {})
    return list(given.values())


def judged_messages_in(state: Any) -> list[BaseMessage]:
    """Return the messages of a state that is to be judged.

    Raises:
        PolicyError: If it has no messages, something in them is no message, or it has no place
            for verdicts: it would pass whatever the judge says.
    """
    given, messages = _given_in(state), messages_in(state)
    is_read = isinstance(given, list | tuple) and len(messages) == len(given)
    if not (remembers(state) and is_read):
        raise PolicyError(
            "The state has no messages that can be judged, or no place for verdicts.",
            hint="Let it have both: class State(MessagesState, VerdictState).",
        )
    return messages


def _given_in(state: Any) -> Any:
    if isinstance(state, Mapping):
        return state.get("messages")
    return state if isinstance(state, list | tuple) else getattr(state, "messages", None)


def _message_of(given: Any) -> BaseMessage | None:
    """Return a message in any form that LangChain takes it; None: it is none."""
    return HumanMessage(given) if isinstance(given, str) else message_of(given)


def _read(entry: Any) -> Verdict | None:
    try:
        return Verdict.model_validate(entry)
    except ValidationError:
        return None


def _seal(data: Mapping[str, Any]) -> str:
    """Return the hash of an entry, keyed where the environment has a key."""
    text = canonical_json(data).encode("utf-8", "surrogatepass")
    key = os.environ.get(SEAL_KEY, "").encode()
    return (hmac.new(key, text, "sha256") if key else hashlib.sha256(text)).hexdigest()


def _made_at(entry: Any) -> str:
    return str(entry.get("created_at", "")) if isinstance(entry, Mapping) else ""
