"""From a judgement to a label and an action: the policy applied, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from safecode_guard.policy import Actions, Policy, Thresholds
from safecode_guard.steering.protocol import Direction
from safecode_guard.taxonomy import Action, Label, Stage, severity
from safecode_guard.verdict import Judgement

_GRAVITY: Final[dict[Label | None, int]] = {"safe": 0, "undecided": 1, "unsafe": 2, None: 3}
"""Rank of what was found, a failed check being the worst."""


@dataclass(frozen=True)
class Decision:
    """What the policy makes of a judgement."""

    label: Label | None
    action: Action
    degraded: bool = False

    @property
    def direction(self) -> Direction:
        """Refusals are suppressed only for a turn that was judged safe."""
        return "suppress" if self.label == "safe" else "boost"

    @property
    def stops(self) -> bool:
        """Whether nothing may be generated, run or handed out."""
        return self.action in ("block", "review")

    @property
    def gravity(self) -> tuple[int, int]:
        """Rank among decisions on parts of one thing: the gravest decides for all."""
        return severity(self.action), _GRAVITY[self.label]


def label_of(judgement: Judgement, thresholds: Thresholds) -> Label | None:
    """Return the label: None for a failed check, by thresholds where there is a probability.

    A judge that says ``undecided`` of itself stays undecided, whatever its probability, and
    nothing out of its scope is called safe.
    """
    if judgement.failed is not None:
        return None
    label = _label_of(judgement, thresholds)
    return "undecided" if label == "safe" and judgement.out_of_scope else label


def _label_of(judgement: Judgement, thresholds: Thresholds) -> Label:
    p = judgement.p_unsafe
    if judgement.label == "undecided" or p is None:
        return judgement.label or "undecided"
    if p >= thresholds.unsafe:
        return "unsafe"
    return "safe" if p <= thresholds.safe else "undecided"


def decide(
    judgement: Judgement, policy: Policy, stage: Stage = "input", *, tool: str | None = None
) -> Decision:
    """Return label and action of what was judged at a stage.

    Raises:
        ValueError: If the policy skips this tool; then there was nothing to judge.
    """
    actions = policy.actions_at(stage, tool)
    if actions == "skip":
        raise ValueError(f"the policy skips the tool {tool!r}")
    return decide_by(actions, judgement, policy, stage)


def decide_by(actions: Actions, judgement: Judgement, policy: Policy, stage: Stage) -> Decision:
    """Return label and action of what was judged at a stage where these actions are in force."""
    return at_stage(_decided(judgement, policy, actions), stage)


def unjudgeable(policy: Policy, stage: Stage = "input", *, tool: str | None = None) -> Decision:
    """Return the decision on something with media that cannot be judged."""
    actions = policy.actions_at(stage, tool)
    action: Action = "block" if actions == "skip" else actions.unjudgeable
    return Decision(None, action, degraded=True)


def _decided(judgement: Judgement, policy: Policy, actions: Actions) -> Decision:
    label = label_of(judgement, policy.thresholds)
    if label is None:
        return Decision(None, actions.judge_error, degraded=True)
    if label == "unsafe":
        overrides = [
            policy.category_actions[category]
            for category in judgement.categories
            if category in policy.category_actions
        ]
        return Decision(label, max(overrides, key=severity, default=actions.unsafe))
    return Decision(label, actions.safe if label == "safe" else actions.undecided)


def at_stage(decision: Decision, stage: Stage) -> Decision:
    """Return what a decision means at a stage: only the user's turn can be guided.

    Elsewhere ``guide`` is a pass for what is safe and a block for all else, and what is undecided
    is at least held for review.
    """
    if stage == "input":
        return decision
    decision = without_steering(decision)
    if decision.label == "undecided" and decision.action == "pass":
        return replace(decision, action="review")
    return decision


def without_steering(decision: Decision) -> Decision:
    """Return the decision where nothing can be steered: guide becomes pass or block."""
    if decision.action != "guide":
        return decision
    return replace(decision, action="pass" if decision.label == "safe" else "block")


def certainty_of(judgement: Judgement | None, label: Label | None) -> float:
    """Return how sure the judge is, |2 p - 1| in [0, 1].

    A hard label counts as sure. So does a turn without a clear label that the policy guides all
    the same: it is then steered as if it were unsafe.
    """
    if judgement is None or judgement.p_unsafe is None or label not in ("safe", "unsafe"):
        return 1.0
    return abs(2 * judgement.p_unsafe - 1)
