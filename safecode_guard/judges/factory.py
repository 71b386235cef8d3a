"""From a policy's judge configuration, or an object of the user's own, to a judge."""

from __future__ import annotations

from typing import Any, Final, assert_never

from safecode_guard.errors import JudgeError, PolicyError
from safecode_guard.judges.combine import CascadeJudge, EnsembleJudge, FallbackJudge
from safecode_guard.judges.local import Loader, LocalJudge
from safecode_guard.judges.protocol import Judge
from safecode_guard.models.protocol import Engine
from safecode_guard.policy import (
    CascadeJudgeConfig,
    ChatJudgeConfig,
    CustomJudgeConfig,
    EnsembleJudgeConfig,
    FallbackJudgeConfig,
    HttpJudgeConfig,
    JudgeConfig,
    LocalJudgeConfig,
    SameModelJudgeConfig,
)

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
) -> Judge:
    """Return the judge that a policy asks for. Nothing is loaded or called yet.

    Args:
        config: The policy's ``judge`` part.
        engine: The guarded model, which judges itself under ``same_model``.
        own: A judge, or a LangChain chat model that is to judge; goes before the configuration.
        load: Loads the model of a judge of kind ``local``, when it is first asked.

    Raises:
        PolicyError: If the configuration needs an object that is not given, or the object given
            is no judge.
    """
    if own is not None:
        return _own_judge(config, own)
    match config:
        case SameModelJudgeConfig():
            return _same_model_judge(config, engine)
        case LocalJudgeConfig():
            if load is None:
                raise PolicyError("judge.kind is 'local', but nothing can load its model here.")
            return LocalJudge(config, load=load)
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
            return _combined(config, engine, load)
        case _:
            assert_never(config)


def _combined(
    config: CascadeJudgeConfig | EnsembleJudgeConfig | FallbackJudgeConfig,
    engine: Engine | None,
    load: Loader | None,
) -> Judge:
    members = [make_judge(member, engine=engine, load=load) for member in config.members]
    match config:
        case CascadeJudgeConfig():
            return CascadeJudge(members, band=config.band)
        case EnsembleJudgeConfig():
            return EnsembleJudge(
                members, rule=config.rule, weights=config.weights, needed=config.needed
            )
        case FallbackJudgeConfig():
            return FallbackJudge(members)


def _same_model_judge(config: SameModelJudgeConfig, engine: Engine | None) -> Judge:
    from safecode_guard.judges.label_logits import LabelLogitsJudge

    try:
        if engine is None:
            raise JudgeError("There is no guarded model whose logits could be read.")
        return LabelLogitsJudge(
            engine,
            min_label_mass=config.min_label_mass,
            caption=config.caption,
            rationale=config.rationale,
        )
    except JudgeError as error:
        raise PolicyError(
            f"judge.kind is 'same_model', but the guarded model cannot judge. {error.message}",
            hint="Pass a judge, or configure judge.kind 'local' or 'http'.",
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
