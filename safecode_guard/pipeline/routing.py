"""Decides from the policy whether something passes, is judged, or is refused unseen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from safecode_guard.policy import Policy
from safecode_guard.taxonomy import Stage
from safecode_guard.turns.turn import Turn

RouteKind = Literal["pass", "judge", "refuse"]


@dataclass(frozen=True)
class Route:
    """Where a turn goes, and why.

    ``refuse`` means that the turn carries media that cannot be judged; the actions'
    ``unjudgeable`` says what follows.
    """

    kind: RouteKind
    reason: str


def route(turn: Turn, policy: Policy, stage: Stage = "input", *, tool: str | None = None) -> Route:
    """Return where a turn, or what is about to happen in it, goes under a policy.

    A follow-up in words about an earlier image is judged like the image itself, as far back as
    ``routing.history_images`` reaches.

    Args:
        turn: The conversation.
        policy: The policy in force.
        stage: What is examined of it.
        tool: The tool's name, at the stages of tools.

    Example:
        >>> from safecode_guard.turns import TextPart, TurnMessage
        >>> turn = Turn((TurnMessage("user", (TextPart("Hello"),)),))
        >>> route(turn, Policy()).kind
        'pass'
    """
    if policy.actions_at(stage, tool) == "skip":
        return Route("pass", f"the policy skips the tool {tool!r}")
    if turn.skipped:
        kinds = ", ".join(sorted({media.kind for media in turn.skipped}))
        return Route("refuse", f"{len(turn.skipped)} media cannot be judged: {kinds}")
    distance = _image_distance(turn)
    reach = policy.routing.history_images
    if distance is not None and (stage != "input" or reach is None or distance <= reach):
        return Route("judge", "image in this turn" if distance == 0 else "image in the history")
    if stage == "output" or getattr(policy.stages, stage).when == "always":
        return Route("judge", "text only, which the policy judges")
    if distance is None:
        return Route("pass", "no image")
    return Route(
        "pass", f"the last image is {distance} messages back; the policy looks {reach} back"
    )


def _image_distance(turn: Turn) -> int | None:
    """Return how many messages before the current request the last image stands; 0: not before.

    The current request begins at the first of the last user messages in a row, so that an agent's
    tool calls and their results do not move its image into the past.
    """
    start = _request_start(turn)
    last = max((i for i, m in enumerate(turn.messages) if m.judged_indices), default=None)
    return None if last is None else max(0, start - last)


def _request_start(turn: Turn) -> int:
    start = len(turn.messages) - 1
    while start > 0 and turn.messages[start].role != "user":
        start -= 1
    while start > 0 and turn.messages[start - 1].role == "user":
        start -= 1
    return start
