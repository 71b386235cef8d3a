"""From a judge and policies to rails; what would guard nothing is refused here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal

from safecode_guard.errors import PolicyError
from safecode_guard.pipeline.examiner import Examiner
from safecode_guard.pipeline.factory import make_examiner
from safecode_guard.policy import Policy, ToolStage
from safecode_guard.runnables.check import SafeCoDeCheck
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.taxonomy import STAGES, Stage
from safecode_guard.turns.pictures import PictureStore
from safecode_guard_langchain.rails import Rails

PolicyLike = Policy | str | Mapping[str, Any]
ToolPolicy = PolicyLike | Literal["skip"]

_TOOL_STAGES: Final[frozenset[Stage]] = frozenset({"tool_call", "tool_result"})


def make_rails(
    judge: Any,
    policy: PolicyLike | None = None,
    *,
    tool_policies: Mapping[str, ToolPolicy] | None = None,
    scene_images: int | None = None,
    stages: Iterable[Stage] = STAGES,
) -> Rails:
    """Return the rails of a judge under a policy.

    Args:
        judge: A judge, a chat model that is to judge, or a check or a guard, whose judge and
            whose memory of judgements are then shared.
        policy: The policy, a preset's name, or plain data; None: the check's or guard's own.
        tool_policies: Policies of tools, by name or pattern, the first that matches; ``skip`` is
            never judged.
        scene_images: Newest pictures that the judge is shown together; None: as the policy says.
        stages: What is going to be judged.

    Raises:
        PolicyError: If the judge is none, or a policy is empty, contradictory, or lets pass what
            is unsafe.
    """
    judged = frozenset(stages)
    if not judged:
        raise PolicyError("Nothing is to be judged.", hint="Leave at least one apply_to_ on.")
    own = _with_scene(_as_policy(policy), scene_images)
    examiner, pictures = _examiner(judge, own, scene_images)
    refuse_lax(examiner.policy, judged)
    tools = [
        (pattern, _of_tool(each, examiner, scene_images, judged, pattern))
        for pattern, each in _named(tool_policies, judged).items()
    ]
    return Rails(examiner, tuple(tools), pictures)


def _as_policy(given: PolicyLike | None) -> Policy | None:
    return None if given is None else Policy.of(given)


def _with_scene(policy: Policy | None, scene_images: int | None) -> Policy | None:
    if policy is None or scene_images is None:
        return policy
    return policy.updated(scene_images=scene_images)


def _examiner(
    judge: Any, policy: Policy | None, scene_images: int | None
) -> tuple[Examiner, PictureStore]:
    """Return what examines, and where pictures are kept; both shared with a check or guard."""
    if judge is None:
        raise PolicyError(
            "There is no judge.", hint="Pass a judge, a chat model, or a guard: its judge serves."
        )
    if not isinstance(judge, SafeCoDeCheck | SafeCoDeGuard):
        own = policy or _with_scene(Policy(), scene_images) or Policy()
        made = make_examiner(own, judge=judge)
        return replace(made, steers=False), PictureStore(made.policy.images.cache_bytes)
    shared = judge.examiner
    wanted = policy or _with_scene(judge.policy, scene_images) or judge.policy
    examiner = replace(shared, steers=False)
    if wanted is not judge.policy:
        examiner = _under(shared, wanted)
    return examiner, judge.pictures


def _under(examiner: Examiner, policy: Policy) -> Examiner:
    """Return an examiner with the same judge and memory under another policy."""
    made = make_examiner(policy, judge=examiner.judge, sinks=examiner.sinks)
    return replace(made, cache=examiner.cache, strays=examiner.strays, steers=False)


def _named(
    given: Mapping[str, ToolPolicy] | None, stages: frozenset[Stage]
) -> Mapping[str, ToolPolicy]:
    if not given:
        return {}
    if not stages & _TOOL_STAGES:
        raise PolicyError(
            "tool_policies are given, but neither calls nor results are judged.",
            hint="Leave apply_to_tool_calls or apply_to_tool_results on.",
        )
    if next(iter(given)) == "*" and given["*"] == "skip":
        raise PolicyError(
            "tool_policies skip every tool.",
            hint="Turn apply_to_tool_calls and apply_to_tool_results off instead.",
        )
    return given


def _of_tool(
    given: ToolPolicy,
    examiner: Examiner,
    scene_images: int | None,
    stages: frozenset[Stage],
    pattern: str,
) -> Examiner | Literal["skip"]:
    if given == "skip":
        return "skip"
    policy = _with_scene(_as_policy(given), scene_images)
    if policy is None:
        raise PolicyError(f"The policy of {pattern!r} is None.", hint='Say "skip", or give one.')
    refuse_lax(policy, stages & _TOOL_STAGES)
    return _under(examiner, policy)


def refuse_lax(policy: Policy, stages: Iterable[Stage]) -> None:
    """Refuse a policy under which judging something would change nothing.

    Raises:
        PolicyError: If what is unsafe passes at one of these stages.
    """
    for stage in stages:
        part = getattr(policy.stages, stage)
        named = list(part.tools) if isinstance(part, ToolStage) else []
        for tool in [None, *named]:
            actions = policy.actions_at(stage, tool)
            if actions != "skip" and actions.unsafe == "pass":
                where = f"{stage} of {tool!r}" if tool else stage
                raise PolicyError(
                    f"Policy {policy.name!r} lets pass what is unsafe (stage {where}).",
                    hint="What is to go unjudged is skipped by name.",
                )
    lax = sorted(c for c, action in policy.category_actions.items() if action == "pass")
    if lax:
        raise PolicyError(
            f"Policy {policy.name!r} lets pass what is unsafe ({', '.join(lax)}).",
            hint="Take it out of category_actions, or hold it for review.",
        )
