"""Branching on verdicts: a Runnable for chains, a predicate, and an edge for graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.base import RunnableLike, coerce_to_runnable

from safecode_guard.errors import GuardError, PolicyError
from safecode_guard.judges.protocol import ToolCallSubject
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
        stage: Whose verdict counts. Of the calls of one answer the gravest does, and one that
            nobody judged goes where a block goes. None: whichever is on the last message, else
            the newest; no verdict passes, as that of a turn which the policy does not judge.

    Raises:
        PolicyError: At once, if an action or the stage does not exist, or an action has no node.
            When it runs, if there is no verdict of the stage: no guard has run.
    """
    require_names("action", nodes, ACTIONS)
    require_names("stage", () if stage is None else (stage,), STAGES)
    missing = [action for action in ACTIONS if action not in nodes]
    if missing:
        raise PolicyError(f"No node for {', '.join(missing)}.", hint="Name one for every action.")

    def edge(state: Any) -> str:
        given: Sequence[Any] = _in_state(state, "messages") or ()
        messages = _as_messages(given)
        last = given[-1] if given else None
        found = Verdict.from_message(last, stage=stage) if isinstance(last, BaseMessage) else None
        if found is None and stage == "tool_call":
            return nodes[_standing_of_calls(state, messages)]
        verdict = found or max(_kept(state, stage), key=lambda v: v.created_at, default=None)
        if verdict is None and stage is not None:
            raise PolicyError(
                f"There is no verdict of stage {stage!r} in the state: no guard has run.",
                hint=f"Put guard_node(..., stage={stage!r}) before this edge.",
            )
        return nodes["pass" if verdict is None else verdict.standing]

    return edge


def _as_messages(given: Sequence[Any]) -> list[BaseMessage]:
    """Return messages that may be written out as plain data; of what is none, the others."""
    try:
        return convert_to_messages(given)
    except (ValueError, TypeError, NotImplementedError, KeyError):
        return [message for message in given if isinstance(message, BaseMessage)]


def _kept(state: Any, stage: Stage | None) -> list[Verdict]:
    """Return the verdicts of a stage that a state keeps."""
    kept = _in_state(state, STATE_KEY) or {}
    verdicts = [Verdict.model_validate(entry) for entry in kept.values()]
    return [verdict for verdict in verdicts if stage in (None, verdict.stage)]


def _standing_of_calls(state: Any, messages: Sequence[BaseMessage]) -> Action:
    """Return the gravest action on the calls of the newest answer; one unjudged is blocked."""
    answer = next((m for m in reversed(messages) if isinstance(m, AIMessage)), None)
    verdicts = _kept(state, "tool_call")
    actions: list[Action] = ["pass"]
    for call in answer.tool_calls if answer is not None else ():
        mine = [verdict.standing for verdict in verdicts if _is_about(verdict, call)]
        actions += mine or ["block"]
    return max(actions, key=severity)


def _is_about(verdict: Verdict, call: Mapping[str, Any]) -> bool:
    """Return whether a verdict is about a call as it stands: its id and what it says."""
    judged = verdict.tool_call
    try:
        subject = ToolCallSubject.of(call)
    except GuardError:
        return False
    if judged is None or judged.args_sha256 != subject.args_sha256():
        return False
    return judged.id == subject.id


def _in_state(state: Any, key: str) -> Any:
    return state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)
