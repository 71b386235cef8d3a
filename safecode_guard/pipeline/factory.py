"""From a policy, and objects of the user's own, to what serves turns under it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safecode_guard.errors import PolicyError
from safecode_guard.judges.cache import JudgementCache
from safecode_guard.judges.calibration import CalibratedJudge
from safecode_guard.judges.disk_cache import DiskCache
from safecode_guard.judges.factory import make_judge
from safecode_guard.judges.folders import folder_of
from safecode_guard.judges.guard_formats import FORMATS
from safecode_guard.judges.guard_models import EngineWriter
from safecode_guard.judges.names import config_of, require_model
from safecode_guard.judges.protocol import Judge
from safecode_guard.models.protocol import Engine
from safecode_guard.pipeline.admission import Admission
from safecode_guard.pipeline.examiner import Examiner, Sink
from safecode_guard.policy import (
    CombinedJudgeConfig,
    GuardModelJudgeConfig,
    JudgeConfig,
    LocalJudgeConfig,
    Policy,
)
from safecode_guard.risk.prototypes import Prototypes
from safecode_guard.steering.factory import check_runs, make_strategy
from safecode_guard.steering.plain import Plain
from safecode_guard.steering.protocol import Strategy
from safecode_guard.taxonomy import Stage

if TYPE_CHECKING:
    from safecode_guard.pipeline.guarded import GuardedTurns


def make_examiner(
    policy: Policy,
    *,
    engine: Engine | None = None,
    judge: object | None = None,
    strategy: Strategy | None = None,
    steers: bool = True,
    sinks: tuple[Sink, ...] = (),
) -> Examiner:
    """Return the examiner of a policy.

    Args:
        policy: The policy in force.
        engine: The guarded engine, where it judges itself.
        judge: A judge of the user's own, a LangChain chat model, or a judge's name.
        strategy: A strategy of the user's own; only its id matters here.
        steers: Whether what answers can be steered.
        sinks: Who else is told every verdict.

    Raises:
        PolicyError: If policy and judge do not go together, or a judge's model is not there.
    """
    if isinstance(judge, str):
        judge = judge_of(config_of(judge))
    configs = [config for _, config in policy.stages.judges()]
    _require_models([*configs, *([policy.judge] if judge is None else [])])
    made = make_judge(
        policy.judge, engine=engine, own=judge, load=load_local, load_guard=load_guard
    )
    staged: dict[Stage, Judge] = {
        stage: make_judge(config, engine=engine, load=load_local, load_guard=load_guard)
        for stage, config in policy.stages.judges()
    }
    if policy.category_actions and not any(
        one.abilities.categories for one in (made, *staged.values())
    ):
        raise PolicyError(
            f"category_actions are set, but the judge {made.id!r} gives no categories.",
            hint="Remove them, or use a judge that names hazards.",
        )
    objects = {"judge": made.id, "prompt": made.prompt_version} if judge is not None else {}
    # the policy holds a file's name, and what it says may change
    if found := [cal for one in (made, *staged.values()) for cal in _calibrations(one)]:
        objects["calibrations"] = ",".join(found)
    if found := [one for judge in (made, *staged.values()) for one in _risks(judge)]:
        objects["ras"] = ",".join(found)
    if strategy is not None:
        objects["strategy"] = strategy.id
    elif steers and policy.decoding.strategy == "ras" and policy.decoding.prototypes:
        objects["prototypes"] = Prototypes.read(Path(policy.decoding.prototypes)).id
    return Examiner(
        made,
        policy,
        _cache(policy),
        policy.digest(**objects),
        steers,
        judges=staged,
        sinks=sinks,
        objects=objects,
    )


def _calibrations(judge: Judge) -> list[str]:
    """Return the ids of the calibrations of a judge and of those that it asks."""
    own = [judge.calibration.id] if isinstance(judge, CalibratedJudge) else []
    return own + [found for member in judge.members for found in _calibrations(member)]


def _risks(judge: Judge) -> list[str]:
    """Return the ids of the judges that go by prototypes, which a file holds as well."""
    own = [judge.id] if judge.id.startswith("ras:") else []
    return own + [found for member in judge.members for found in _risks(member)]


def _cache(policy: Policy) -> JudgementCache:
    path = policy.judge.cache_path
    below = path and DiskCache(
        Path(path), size=policy.judge.cache_path_size, content=policy.record_content
    )
    return JudgementCache(policy.judge.cache_size, below=below or None)


def make_turns(
    engine: Engine,
    examiner: Examiner,
    *,
    strategy: Strategy | None = None,
    admission: Admission | None = None,
) -> GuardedTurns:
    """Return what serves an engine's turns under an examiner's policy.

    Args:
        engine: What answers.
        examiner: What judges and decides.
        strategy: A strategy of the user's own.
        admission: The queue before the engine; None: it has limits of its own.

    Raises:
        PolicyError: If the strategy does not fit the policy.
        LogitsUnavailable: If the engine cannot run the strategy.
    """
    from safecode_guard.pipeline.guarded import GuardedTurns
    from safecode_guard.pipeline.steering import Steering

    decoding = examiner.policy.decoding
    made: Strategy = Plain()
    if examiner.steers:
        made = make_strategy(decoding, engine.family, strategy, engine_id=engine.id)
        check_runs(made, engine.abilities)
    return GuardedTurns(
        engine,
        examiner,
        steering=Steering(engine, made, seed=decoding.seed),
        admission=admission or Admission.unlimited(),
    )


def judge_of(config: JudgeConfig) -> Judge:
    """Return the judge of a configuration that needs no guarded model; nothing is loaded yet.

    Raises:
        PolicyError: If it needs an object, or its model is not there.
    """
    _require_models([config])
    return make_judge(config, load=load_local, load_guard=load_guard)


def _require_models(configs: Iterable[JudgeConfig]) -> None:
    for config in configs:
        if isinstance(config, LocalJudgeConfig | GuardModelJudgeConfig):
            require_model(config)
        elif isinstance(config, CombinedJudgeConfig):
            _require_models(config.members)


def load_local(config: LocalJudgeConfig) -> Engine:
    """Return the model of a judge of kind ``local``, loaded."""
    from safecode_guard.engines.transformers.model import TransformersModel

    return TransformersModel.load(
        folder_of(config.model),
        device=config.device,
        dtype=config.dtype,
        local_files_only=config.local_files_only,
    )


def load_guard(config: GuardModelJudgeConfig) -> Any:
    """Return the model of a judge of kind ``guard_model``, loaded: what its adapter needs."""
    from safecode_guard.engines.transformers.guards import PictureClassifier, TextModel

    where: dict[str, Any] = {
        "device": config.device,
        "dtype": config.dtype,
        "local_files_only": config.local_files_only,
    }
    if config.adapter == "shieldgemma_2":
        return PictureClassifier.load(config.model, **where)
    if not FORMATS[config.adapter].sees_images:
        return TextModel.load(config.model, **where)
    from safecode_guard.engines.transformers.model import TransformersModel

    return EngineWriter(TransformersModel.load(config.model, **where))
