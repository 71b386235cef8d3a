"""From a policy's judge configuration, or an object of the user's own, to a judge."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, assert_never

from safecode_guard.errors import JudgeError, PolicyError
from safecode_guard.judges.calibration import CalibratedJudge, Calibration
from safecode_guard.judges.combine import CascadeJudge, EnsembleJudge, FallbackJudge
from safecode_guard.judges.folders import identity_of
from safecode_guard.judges.guard_models import GuardModelJudge, ImageGuardJudge
from safecode_guard.judges.local import Loader, LocalJudge
from safecode_guard.judges.protocol import Judge
from safecode_guard.judges.scope import Scope
from safecode_guard.models.protocol import Engine
from safecode_guard.policy import (
    CascadeJudgeConfig,
    ChatJudgeConfig,
    CustomJudgeConfig,
    EnsembleJudgeConfig,
    FallbackJudgeConfig,
    GuardModelJudgeConfig,
    HttpJudgeConfig,
    JudgeConfig,
    LocalJudgeConfig,
    RasJudgeConfig,
    SameModelJudgeConfig,
)
from safecode_guard.risk.prototypes import Prototypes

GuardLoader = Callable[[GuardModelJudgeConfig], Any]
"""Loads the guard model that a configuration names: a `Writer`, or an `ImageClassifier`."""

_REQUIRED: Final = ("id", "prompt_version", "abilities", "members", "judge", "ajudge", "close")
_BASE: Final = (
    "Derive it from safecode_guard.BaseJudge, which brings all but id and judge; or pass a "
    "LangChain chat model."
)


def make_judge(
    config: JudgeConfig,
    *,
    engine: Engine | None = None,
    own: object | None = None,
    load: Loader | None = None,
    load_guard: GuardLoader | None = None,
) -> Judge:
    """Return the judge that a policy asks for. Nothing is loaded or called yet.

    Args:
        config: The policy's ``judge`` part.
        engine: The guarded model, which judges itself under ``same_model``.
        own: A judge, or a LangChain chat model that is to judge; goes before the configuration.
        load: Loads the model of a judge of kind ``local``, when it is first asked.
        load_guard: Loads that of a judge of kind ``guard_model``.

    Raises:
        PolicyError: If the configuration needs an object that is not given, the object given is
            no judge, or the calibration is another judge's.
    """
    path = config.calibration
    calibration = None if path is None else Calibration.read(Path(path))
    scope = None if calibration is None else calibration.scope
    made = (
        _own_judge(config, own)
        if own is not None
        else _configured(config, engine=engine, scope=scope, load=load, load_guard=load_guard)
    )
    return made if calibration is None else CalibratedJudge(made, calibration)


def _configured(
    config: JudgeConfig,
    *,
    engine: Engine | None,
    scope: Scope | None,
    load: Loader | None,
    load_guard: GuardLoader | None,
) -> Judge:
    match config:
        case SameModelJudgeConfig():
            return _same_model_judge(config, engine, scope)
        case LocalJudgeConfig():
            if load is None:
                raise PolicyError("judge.kind is 'local', but nothing can load its model here.")
            return LocalJudge(config, load=load, scope=scope)
        case GuardModelJudgeConfig():
            return _guard_model(config, engine, load_guard)
        case RasJudgeConfig():
            return _ras_judge(config, engine)
        case HttpJudgeConfig():
            return _http_judge(config)
        case ChatJudgeConfig():
            raise PolicyError(
                "judge.kind is 'chat', but no chat model was given.",
                hint="Pass it: SafeCoDeGuard(model=..., judge=chat_model).",
            )
        case CustomJudgeConfig():
            raise PolicyError(
                f"judge.kind is 'custom', but no judge with the id {config.id!r} was given.",
                hint="Pass the object: SafeCoDeGuard(model=..., judge=my_judge).",
            )
        case CascadeJudgeConfig() | EnsembleJudgeConfig() | FallbackJudgeConfig():
            return _combined(
                config, partial(make_judge, engine=engine, load=load, load_guard=load_guard)
            )
        case _:
            assert_never(config)


def _guard_model(
    config: GuardModelJudgeConfig, engine: Engine | None, load: GuardLoader | None
) -> Judge:
    if load is None:
        raise PolicyError("judge.kind is 'guard_model', but nothing can load its model here.")
    id = f"{config.adapter}:{identity_of(config.model)}"
    loaded = partial(load, config)
    if config.adapter == "shieldgemma_2":
        return ImageGuardJudge(loaded, id=id)
    try:
        return GuardModelJudge(
            config.adapter,
            loaded,
            id=id,
            policy=config.policy,
            captioner=engine if config.caption else None,
        )
    except JudgeError as error:
        raise PolicyError(error.message, hint=error.hint) from error


def _combined(
    config: CascadeJudgeConfig | EnsembleJudgeConfig | FallbackJudgeConfig,
    make: Callable[[JudgeConfig], Judge],
) -> Judge:
    members = [make(member) for member in config.members]
    match config:
        case CascadeJudgeConfig():
            return CascadeJudge(members, band=config.band)
        case EnsembleJudgeConfig():
            return EnsembleJudge(
                members, rule=config.rule, weights=config.weights, needed=config.needed
            )
        case FallbackJudgeConfig():
            return FallbackJudge(members)


def _same_model_judge(
    config: SameModelJudgeConfig, engine: Engine | None, scope: Scope | None
) -> Judge:
    from safecode_guard.judges.label_logits import LabelLogitsJudge

    try:
        if engine is None:
            raise JudgeError("There is no guarded model whose logits could be read.")
        return LabelLogitsJudge(
            engine,
            min_label_mass=config.min_label_mass,
            caption=config.caption,
            rationale=config.rationale,
            debias=config.debias,
            trim_borders=config.trim_borders,
            scope=scope,
        )
    except JudgeError as error:
        raise PolicyError(
            f"judge.kind is 'same_model', but the guarded model cannot judge. {error.message}",
            hint="Pass a judge, or configure judge.kind 'local' or 'http'.",
        ) from error


def _ras_judge(config: RasJudgeConfig, engine: Engine | None) -> Judge:
    from safecode_guard.judges.ras import RasJudge

    prototypes = Prototypes.read(Path(config.prototypes))
    try:
        if engine is None:
            raise JudgeError("There is no guarded model whose logits could be read.")
        return RasJudge(engine, prototypes, caption=config.caption)
    except JudgeError as error:
        raise PolicyError(
            f"judge.kind is 'ras', but the guarded model's risk cannot be read. {error.message}",
            hint="Guard a ChatTransformers, or configure another judge.",
        ) from error


def _http_judge(config: HttpJudgeConfig) -> Judge:
    from safecode_guard.judges.http import HttpJudge

    return HttpJudge(config)


def _own_judge(config: JudgeConfig, own: Any) -> Judge:
    judge: Judge = own
    if isinstance(own, type):
        raise PolicyError(
            f"{own.__name__!r} is a class, no judge.", hint=f"Pass an object: {own.__name__}()."
        )
    if missing := [name for name in _REQUIRED if not hasattr(own, name)]:
        if not _is_chat_model(own):
            lacks = ", ".join(missing)
            raise PolicyError(f"{type(own).__name__!r} is no judge: it lacks {lacks}.", hint=_BASE)
        judge = _chat_judge(config, own)
    if isinstance(config, CustomJudgeConfig) and config.id != judge.id:
        raise PolicyError(
            f"The policy wants the judge {config.id!r}, but was given {judge.id!r}.",
            hint="Set judge.id to the object's id: it is part of the policy's digest.",
        )
    return judge


def _chat_judge(config: JudgeConfig, model: Any) -> Judge:
    from safecode_guard.judges.chat import ChatJudge

    return ChatJudge(
        model, timeout_s=config.timeout_s, caption=config.caption, rationale=config.rationale
    )


def _is_chat_model(own: object) -> bool:
    from langchain_core.language_models import BaseChatModel

    return isinstance(own, BaseChatModel)
