"""A guardrail for agents that see: SafeCoDe decoding and typed verdicts in LangChain.

Everything public is importable from here. Errors and vocabularies are at hand at once; the rest
is loaded on first use, so that ``import safecode_guard`` pulls in no torch, transformers,
LangChain or HTTP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from safecode_guard.errors import (
    AuditError,
    ConstraintError,
    DataError,
    FetchFailed,
    ForbiddenSource,
    GuardError,
    ImageError,
    ImageTooLarge,
    JudgeError,
    JudgeTimeout,
    JudgeUnavailable,
    LogitsUnavailable,
    ModelError,
    ModelUnavailable,
    Overloaded,
    PolicyError,
    SteeringUnproven,
    TemplateError,
    TurnBlocked,
    TurnTimeout,
    UnknownArgument,
    UnreadableCall,
    UnreadableImage,
    UnsupportedFamily,
    UnsupportedGeneration,
    UnsupportedMedia,
)
from safecode_guard.taxonomy import Action, Category, Label, Stage

if TYPE_CHECKING:
    from safecode_guard.audit import AuditLog
    from safecode_guard.judges.chat import ChatJudge
    from safecode_guard.judges.combine import CascadeJudge, EnsembleJudge, FallbackJudge
    from safecode_guard.judges.http import HttpJudge
    from safecode_guard.judges.protocol import BaseJudge, Judge, JudgeAbilities, JudgeRequest
    from safecode_guard.models.protocol import Needs, Step
    from safecode_guard.policy import Policy
    from safecode_guard.runnables.branching import (
        is_action,
        is_label,
        route_by_action,
        route_by_label,
        verdict_edge,
    )
    from safecode_guard.runnables.check import SafeCoDeCheck
    from safecode_guard.runnables.events import (
        AsyncVerdictHandler,
        VerdictHandler,
        emit_verdict,
    )
    from safecode_guard.runnables.guard import SafeCoDeGuard
    from safecode_guard.runnables.transformers import ChatTransformers
    from safecode_guard.runnables.vllm import ChatVLLM
    from safecode_guard.settings import (
        SafeCoDeSettings,
        UnknownSettingWarning,
        UnreadEnvironmentWarning,
    )
    from safecode_guard.steering.protocol import (
        LogitsStrategy,
        SteeringContext,
        Strategy,
        TurnPlan,
    )
    from safecode_guard.verdict import Judgement, Verdict

__version__ = "0.1.0"

__all__ = [
    "Action",
    "AsyncVerdictHandler",
    "AuditError",
    "AuditLog",
    "BaseJudge",
    "CascadeJudge",
    "Category",
    "ChatJudge",
    "ChatTransformers",
    "ChatVLLM",
    "ConstraintError",
    "DataError",
    "EnsembleJudge",
    "FallbackJudge",
    "FetchFailed",
    "ForbiddenSource",
    "GuardError",
    "HttpJudge",
    "ImageError",
    "ImageTooLarge",
    "Judge",
    "JudgeAbilities",
    "JudgeError",
    "JudgeRequest",
    "JudgeTimeout",
    "JudgeUnavailable",
    "Judgement",
    "Label",
    "LogitsStrategy",
    "LogitsUnavailable",
    "ModelError",
    "ModelUnavailable",
    "Needs",
    "Overloaded",
    "Policy",
    "PolicyError",
    "SafeCoDeCheck",
    "SafeCoDeGuard",
    "SafeCoDeSettings",
    "Stage",
    "SteeringContext",
    "SteeringUnproven",
    "Step",
    "Strategy",
    "TemplateError",
    "TurnBlocked",
    "TurnPlan",
    "TurnTimeout",
    "UnknownArgument",
    "UnknownSettingWarning",
    "UnreadEnvironmentWarning",
    "UnreadableCall",
    "UnreadableImage",
    "UnsupportedFamily",
    "UnsupportedGeneration",
    "UnsupportedMedia",
    "Verdict",
    "VerdictHandler",
    "emit_verdict",
    "is_action",
    "is_label",
    "route_by_action",
    "route_by_label",
    "verdict_edge",
]

_LAZY = {
    "FallbackJudge": "judges.combine",
    "EnsembleJudge": "judges.combine",
    "CascadeJudge": "judges.combine",
    "AuditLog": "audit",
    "emit_verdict": "runnables.events",
    "is_action": "runnables.branching",
    "is_label": "runnables.branching",
    "route_by_action": "runnables.branching",
    "route_by_label": "runnables.branching",
    "verdict_edge": "runnables.branching",
    "ChatTransformers": "runnables.transformers",
    "ChatVLLM": "runnables.vllm",
    "SafeCoDeCheck": "runnables.check",
    "AsyncVerdictHandler": "runnables.events",
    "VerdictHandler": "runnables.events",
    "SafeCoDeGuard": "runnables.guard",
    "ChatJudge": "judges.chat",
    "HttpJudge": "judges.http",
    "BaseJudge": "judges.protocol",
    "Judge": "judges.protocol",
    "JudgeAbilities": "judges.protocol",
    "JudgeRequest": "judges.protocol",
    "Needs": "models.protocol",
    "Step": "models.protocol",
    "Policy": "policy",
    "SafeCoDeSettings": "settings",
    "UnknownSettingWarning": "settings",
    "UnreadEnvironmentWarning": "settings",
    "LogitsStrategy": "steering.protocol",
    "SteeringContext": "steering.protocol",
    "Strategy": "steering.protocol",
    "TurnPlan": "steering.protocol",
    "Judgement": "verdict",
    "Verdict": "verdict",
}
"""Module of each public name that is loaded on first use."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
