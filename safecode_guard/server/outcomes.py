"""What two policies make of whatever a judge may find, and whether one of them is milder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from safecode_guard.pipeline.rules import certainty_of, decide_by, without_steering
from safecode_guard.policy import Actions, Policy
from safecode_guard.taxonomy import LABELS, STAGES, Action, Stage
from safecode_guard.verdict import Judgement

_GRAVITY: Final[dict[Action, float]] = {"pass": 0.0, "review": 2.0, "block": 3.0}


def milder_at(old: Policy, new: Policy) -> Stage | None:
    """Return the first stage at which a policy is milder than another one; None: at none.

    Nothing that a judge may find gets a milder action, whatever changed: actions, thresholds, or
    several of them at once.

    Args:
        old: The policy in force.
        new: The same policy with other actions, thresholds and limits.
    """
    findings = list(_findings(old, new))
    for stage in STAGES:
        both = zip(old.every_actions_at(stage), new.every_actions_at(stage), strict=True)
        for before, after in both:
            if before == "skip" or after == "skip":  # the same in both: tools are not narrowed
                continue
            if any(
                _gravity(after, found, new, stage) < _gravity(before, found, old, stage)
                for found in findings
            ):
                return stage
    return None


def _findings(*policies: Policy) -> Iterator[Judgement]:
    """Yield judgements of every kind: between two of their probabilities no label changes."""
    judged = partial(Judgement, judge_id="", prompt_version="")
    sets: list[tuple[Any, ...]] = [(), *((each,) for each in policies[0].category_actions)]
    edges = {t for policy in policies for t in (policy.thresholds.unsafe, policy.thresholds.safe)}
    near = {math.nextafter(t, to) for t in edges for to in (0.0, 1.0)}
    for p in sorted(edges | near | {0.0, 0.5, 1.0}):
        yield from (judged(p_unsafe=p, categories=categories) for categories in sets)
        yield judged(p_unsafe=p, unlikeness=2.0)
    for label in LABELS:
        yield from (judged(label=label, categories=categories) for categories in sets)
    yield judged(failed="it failed")


def _gravity(actions: Actions, found: Judgement, policy: Policy, stage: Stage) -> float:
    """Return how little a decision lets pass, from -1, where refusals are suppressed, to 3."""
    decision = decide_by(actions, found, policy, stage)
    if policy.mode == "judge_only":
        decision = without_steering(decision)
    if decision.action != "guide":
        return _GRAVITY[decision.action]
    push = certainty_of(found, decision.label)
    return -push if decision.direction == "suppress" else push
