"""Branching on verdicts: a Runnable for chains, a predicate, and an edge for graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.base import RunnableLike, coerce_to_runnable

from safecode_guard.errors import PolicyError
from safecode_guard.taxonomy import ACTIONS, Action
from safecode_guard.verdict import Verdict


def action_of(subject: BaseMessage | Verdict) -> Action:
    """Return the most severe action on a message; a message without a verdict passes.

    Only turns that the policy does not judge (text alone, say) come without a verdict.
    """
    verdict = subject if isinstance(subject, Verdict) else Verdict.from_message(subject)
    return verdict.action if verdict is not None else "pass"


def is_action(*actions: Action) -> Callable[[BaseMessage | Verdict], bool]:
    """Return a predicate for ``RunnableBranch``: does the message carry one of these actions?

    Raises:
        PolicyError: If an action does not exist.
    """
    _check(actions)
    return lambda subject: action_of(subject) in actions


def route_by_action(
    routes: Mapping[Action, RunnableLike[Any, Any]],
    *,
    default: RunnableLike[Any, Any] | None = None,
) -> Runnable[Any, Any]:
    """Return a Runnable that sends a guarded answer on by its verdict's action.

    Args:
        routes: What runs for each action; it gets the message (or verdict) unchanged.
        default: What runs for actions not named.

    Raises:
        PolicyError: At once, if an action does not exist or one has no route and no default.

    Example:
        >>> routes = {"block": escalate, "review": ask_human}           # doctest: +SKIP
        >>> chain = guard | route_by_action(routes, default=parser)     # doctest: +SKIP
    """
    _check(routes)
    missing = [action for action in ACTIONS if action not in routes]
    if missing and default is None:
        raise PolicyError(
            f"No route for {', '.join(missing)}.", hint="Add the routes, or pass default=."
        )
    runnables: dict[Action, Runnable[Any, Any]] = {
        action: coerce_to_runnable(routes.get(action, default))  # type: ignore[arg-type]
        for action in ACTIONS
    }

    def choose(subject: BaseMessage | Verdict) -> Runnable[Any, Any]:
        return runnables[action_of(subject)]

    return RunnableLambda(choose, name="route_by_action")


def verdict_edge(nodes: Mapping[Action, str]) -> Callable[[Any], str]:
    """Return a conditional edge for LangGraph: the state's last message picks the next node.

    Takes states with ``messages`` as a mapping key or an attribute.

    Raises:
        PolicyError: At once, if an action does not exist or has no node.
    """
    _check(nodes)
    missing = [action for action in ACTIONS if action not in nodes]
    if missing:
        raise PolicyError(f"No node for {', '.join(missing)}.", hint="Name one for every action.")

    def edge(state: Any) -> str:
        messages = state["messages"] if isinstance(state, Mapping) else state.messages
        return nodes[action_of(messages[-1])]

    return edge


def _check(actions: Any) -> None:
    unknown = [action for action in actions if action not in ACTIONS]
    if unknown:
        raise PolicyError(
            f"Unknown action {', '.join(map(repr, unknown))}.", hint=f"Use {', '.join(ACTIONS)}."
        )
