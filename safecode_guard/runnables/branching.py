"""Branching on verdicts: a Runnable for chains, a predicate, and an edge for graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.base import RunnableLike, coerce_to_runnable

from safecode_guard.errors import PolicyError
from safecode_guard.runnables.arguments import require_names
from safecode_guard.taxonomy import ACTIONS, LABELS, STAGES, Action, Label, Stage, severity
from safecode_guard.verdict import STATE_KEY, Verdict


def action_of(subject: BaseMessage | Verdict) -> Action:
    """Return the most severe action on a message; a message without a verdict passes.

    Only turns that the policy does not judge (text alone, say) come without a verdict.
    """
    verdict = subject if isinstance(subject, Verdict) else Verdict.from_message(subject)
    return verdict.standing if verdict is not None else "pass"


def is_action(*actions: Action) -> Callable[[BaseMessage | Verdict], bool]:
    """Return a predicate for ``RunnableBranch``: does the message carry one of these actions?

    Raises:
        PolicyError: If an action does not exist.
    """
    require_names("action", actions, ACTIONS)
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
    require_names("action", routes, ACTIONS)
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


def label_of(subject: BaseMessage | Verdict) -> Label | None:
    """Return the gravest label on a message; None if nothing was judged, or a check failed.

    With the preset ``balanced`` an unsafe turn is guided and not blocked: its action tells it
    from a safe one no more than a safe one's does, and its label does.
    """
    if isinstance(subject, Verdict):
        return subject.label
    verdicts = Verdict.all_from_message(subject)
    if any(verdict.label is None and verdict.degraded for verdict in verdicts):
        return None
    labels = [verdict.label for verdict in verdicts]
    return next((label for label in ("unsafe", "undecided", "safe") if label in labels), None)


def is_label(*labels: Label) -> Callable[[BaseMessage | Verdict], bool]:
    """Return a predicate for ``RunnableBranch``: does the message carry one of these labels?

    Raises:
        PolicyError: If a label does not exist.
    """
    require_names("label", labels, LABELS)
    return lambda subject: label_of(subject) in labels


def route_by_label(
    routes: Mapping[Label, RunnableLike[Any, Any]], *, default: RunnableLike[Any, Any]
) -> Runnable[Any, Any]:
    """Return a Runnable that sends a guarded answer on by its verdict's label.

    Args:
        routes: What runs for each label; it gets the message (or verdict) unchanged.
        default: What runs for labels not named, and where there is none: a check that failed, or
            a turn that the policy does not judge.

    Raises:
        PolicyError: At once, if a label does not exist.

    Example:
        >>> chain = guard | route_by_label({"unsafe": warn}, default=parser)  # doctest: +SKIP
    """
    require_names("label", routes, LABELS)
    runnables: dict[Label | None, Runnable[Any, Any]] = {
        label: coerce_to_runnable(runnable) for label, runnable in routes.items()
    }
    otherwise: Runnable[Any, Any] = coerce_to_runnable(default)

    def choose(subject: BaseMessage | Verdict) -> Runnable[Any, Any]:
        return runnables.get(label_of(subject), otherwise)

    return RunnableLambda(choose, name="route_by_label")


def verdict_edge(
    nodes: Mapping[Action, str], *, stage: Stage | None = None
) -> Callable[[Any], str]:
    """Return a conditional edge for LangGraph: the newest verdict picks the next node.

    Verdicts are looked for on the state's last message, and in its ``safecode_verdicts``, where
    nodes that only judge leave theirs. Takes states with ``messages`` as a mapping key or an
    attribute.

    Args:
        nodes: The node for each action; a human's decision stands above the policy's.
        stage: Whose verdict counts. Of the calls of one answer the gravest does. None: whichever
            is on the last message, else the newest.

    Raises:
        PolicyError: At once, if an action or the stage does not exist, or an action has no node.
    """
    require_names("action", nodes, ACTIONS)
    require_names("stage", () if stage is None else (stage,), STAGES)
    missing = [action for action in ACTIONS if action not in nodes]
    if missing:
        raise PolicyError(f"No node for {', '.join(missing)}.", hint="Name one for every action.")

    def edge(state: Any) -> str:
        given: Sequence[Any] = _in_state(state, "messages") or ()
        messages = [message for message in given if isinstance(message, BaseMessage)]
        last = given[-1] if given else None
        found = Verdict.from_message(last, stage=stage) if isinstance(last, BaseMessage) else None
        verdict = found or _newest(state, messages, stage)
        return nodes["pass" if verdict is None else verdict.standing]

    return edge


def _newest(state: Any, messages: Sequence[BaseMessage], stage: Stage | None) -> Verdict | None:
    """Return the verdict in a state that counts now."""
    kept = _in_state(state, STATE_KEY) or {}
    verdicts = [Verdict.model_validate(entry) for entry in kept.values()]
    verdicts = [verdict for verdict in verdicts if stage in (None, verdict.stage)]
    if stage == "tool_call":
        calls: list[Any] = next(
            (c for m in reversed(messages) if (c := getattr(m, "tool_calls", None))), []
        )
        ids = {call["id"] for call in calls}
        mine = [v for v in verdicts if v.tool_call is not None and v.tool_call.id in ids]
        return max(mine, key=lambda v: severity(v.standing), default=None)
    return max(verdicts, key=lambda v: v.created_at, default=None)


def _in_state(state: Any, key: str) -> Any:
    return state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)
