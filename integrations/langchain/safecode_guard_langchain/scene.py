"""The scene in which something is judged: the conversation's own, and its callers'.

A sub-agent is told a part of the task and shown none of the pictures; what it does with them is
judged in the scene of whoever called it as well as in its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from safecode_guard.errors import GuardError
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.scene import FURTHEST, scene_of
from safecode_guard_langchain.sight import REFUSED, Sight, plain

Conversation = Sequence[BaseMessage]

_callers: ContextVar[tuple[tuple[BaseMessage, ...], ...]] = ContextVar(
    "safecode_callers", default=()
)

_USERS: Final = (HumanMessage, ChatMessage)


@contextmanager
def within_scene(messages: Conversation) -> Iterator[None]:
    """Judge what guarded agents do inside in the scene of this conversation, too.

    Guarded tools do so by themselves for agents that run in them. A node of a graph that calls an
    agent with messages of its own making does it by hand.

    Example:
        >>> with within_scene(state["messages"]):              # doctest: +SKIP
        ...     agent.invoke({"messages": [HumanMessage("Switch it on.")]})
    """
    token = _callers.set((*_callers.get(), tuple(messages)))
    try:
        yield
    finally:
        _callers.reset(token)


def within_any() -> bool:
    """Return whether there is a caller in whose scene something is judged."""
    return bool(_callers.get())


def scenes(messages: Conversation, sight: Sight) -> list[list[BaseMessage]]:
    """Return the conversations in which something is to be judged: this one, then its callers.

    One without pictures is about those of its caller.
    """
    callers = [list(caller) for caller in reversed(_callers.get())]
    own = list(messages)
    if callers and not sight.shows(own):
        shown = [m for m in callers[0] if sight.media(m)]
        own = [*shown, *own]
    return [own, *callers]


@dataclass(frozen=True)
class Short:
    """A conversation without what no scene is made of."""

    messages: list[BaseMessage]
    places: list[int]
    """Where they stand in the whole conversation."""


def in_short(
    messages: Conversation, sight: Sight, *, most: int, passed: frozenset[str] = frozenset()
) -> Short:
    """Return what makes the scene of a conversation: its newest pictures and what is asked.

    An agent's thousandth step costs what its tenth did.

    Args:
        messages: The conversation.
        sight: Knows which media a message holds.
        most: Pictures in the scene.
        passed: Marks of media that may be shown; of these, what cannot be judged is let be.
    """
    kept = {index: _text_of(messages[index]) for index in _asked(messages)}
    count = 0
    for index in range(len(messages) - 1, -1, -1):
        if count >= most:
            break
        media = sight.media(messages[index])
        if media:
            count += len(media)
            if not _let_pass(media, passed):
                kept[index] = plain(messages[index])
    places = sorted(kept)
    return Short([kept[index] for index in places], places)


def request_of(messages: Conversation) -> str:
    """Return all that is asked in a conversation, with what stands before a short request.

    Of one that cannot be read it is whatever is said: the judge's rail will say why.
    """
    words = [_text_of(messages[index]) for index in _asked(messages)]
    try:
        return scene_of(read_turn(words), requests=FURTHEST).request if words else ""
    except GuardError:
        return repr([message.content for message in words])


def place_of(messages: Conversation, sight: Sight) -> list[str]:
    """Return what tells the scenes of an answer from others: their media, and what is asked."""
    media = frozenset[str]().union(*map(sight.in_all, scenes(messages, sight)))
    return [*sorted(media), request_of(messages)]


def place_of_request(messages: Conversation, sight: Sight) -> list[str]:
    """Return what tells the scene of a request from others: what was in sight when it was made.

    Pictures that tools return afterwards are judged as results, with the request beside them.
    """
    scene = scenes(messages, sight)[0]
    places = range(len(scene) - 1, -1, -1)
    last = next((i for i in places if isinstance(scene[i], _USERS)), len(scene) - 1)
    return [*sorted(sight.in_all(scene[: last + 1])), request_of(messages)]


def _is_users(message: BaseMessage) -> bool:
    return isinstance(message, _USERS)


def _let_pass(media: frozenset[str], passed: frozenset[str]) -> bool:
    """Return whether a human has let through what no judge can look at."""
    refused = {mark for mark in media if mark.startswith(REFUSED)}
    return bool(refused) and refused <= passed


def _asked(messages: Conversation) -> list[int]:
    """Return the places of the messages that say what is asked, confirmed offers included."""
    found: list[int] = []
    exchanges, in_request = 0, False
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if isinstance(message, ToolMessage):
            continue
        if isinstance(message, AIMessage):
            if not 0 < exchanges <= FURTHEST:
                continue
            in_request = False
        elif _is_users(message):
            if exchanges > FURTHEST:
                continue
            exchanges += not in_request
            in_request = True
        elif not isinstance(message, SystemMessage):
            continue
        found.append(index)
    return found[::-1]


def _text_of(message: BaseMessage) -> BaseMessage:
    """Return a message with its words alone."""
    if isinstance(message.content, str):
        return plain(message)
    return plain(message).model_copy(update={"content": str(message.text)})
