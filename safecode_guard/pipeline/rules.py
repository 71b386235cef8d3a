"""From a judgement to a label and an action: the policy applied, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from safecode_guard.policy import Policy, Thresholds
from safecode_guard.steering.protocol import Direction
from safecode_guard.taxonomy import Action, Label, severity
from safecode_guard.verdict import Judgement


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


def label_of(judgement: Judgement, thresholds: Thresholds) -> Label | None:
    """Return the label: None for a failed check, by thresholds where there is a probability.

    A judge that says ``undecided`` of itself stays undecided, whatever its probability.
    """
    if judgement.failed is not None:
        return None
    p = judgement.p_unsafe
    if judgement.label == "undecided" or p is None:
        return judgement.label or "undecided"
    if p >= thresholds.unsafe:
        return "unsafe"
    return "safe" if p <= thresholds.safe else "undecided"


def decide(judgement: Judgement, policy: Policy) -> Decision:
    """Return label and action of a judged turn."""
    label = label_of(judgement, policy.thresholds)
    actions = policy.actions
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


def certainty_of(judgement: Judgement | None, label: Label | None) -> float:
    """Return how sure the judge is, |2 p - 1| in [0, 1].

    A hard label counts as sure. So does a turn without a clear label that the policy guides all
    the same: it is then steered as if it were unsafe.
    """
    if judgement is None or judgement.p_unsafe is None or label not in ("safe", "unsafe"):
        return 1.0
    return abs(2 * judgement.p_unsafe - 1)


def without_steering(decision: Decision) -> Decision:
    """Return the decision for a model that cannot be steered: guide becomes pass or block."""
    if decision.action != "guide":
        return decision
    action: Action = "pass" if decision.label == "safe" else "block"
    return Decision(decision.label, action, decision.degraded)
