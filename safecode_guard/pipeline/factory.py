"""From a policy, and objects of the user's own, to what serves turns under it."""

from __future__ import annotations

from safecode_guard.errors import PolicyError
from safecode_guard.judges.cache import JudgementCache
from safecode_guard.judges.factory import make_judge
from safecode_guard.engines.transformers.protocol import CachedModel
from safecode_guard.pipeline.examiner import Examiner
from safecode_guard.policy import LocalJudgeConfig, Policy
from safecode_guard.steering.protocol import Strategy


def make_examiner(
    policy: Policy,
    *,
    model: CachedModel | None = None,
    judge: object | None = None,
    strategy: Strategy | None = None,
    steers: bool = True,
) -> Examiner:
    """Return the examiner of a policy.

    Args:
        policy: The policy in force.
        model: The guarded model, where it judges itself.
        judge: A judge of the user's own, or a LangChain chat model.
        strategy: A strategy of the user's own; only its id matters here.
        steers: Whether the guarded model can be steered.

    Raises:
        PolicyError: If policy and judge do not go together.
    """
    made = make_judge(policy.judge, vlm=model, own=judge, load=load_local)
    if policy.category_actions and not made.gives_categories:
        raise PolicyError(
            f"category_actions are set, but the judge {made.id!r} gives no categories.",
            hint="Remove them, or use a judge that names hazards.",
        )
    objects = {"judge": made.id} if judge is not None else {}
    if strategy is not None:
        objects["strategy"] = strategy.id
    cache = JudgementCache(policy.judge.cache_size)
    return Examiner(made, policy, cache, policy.digest(**objects), steers)


def load_local(config: LocalJudgeConfig) -> CachedModel:
    """Return the model of a judge of kind ``local``, loaded."""
    from safecode_guard.engines.transformers.model import TransformersModel

    return TransformersModel.load(
        config.model,
        device=config.device,
        dtype=config.dtype,
        local_files_only=config.local_files_only,
    )
