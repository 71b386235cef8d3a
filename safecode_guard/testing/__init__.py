"""Fakes to test guarded pipelines with: no weights, no network, every answer scripted.

They implement the library's own protocols, so what is tested is the real guard around them. Each
is loaded on first use: a scripted judge needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safecode_guard.testing.endpoint import ModelEndpoint
    from safecode_guard.testing.events import EventRecorder, RecordedEvent
    from safecode_guard.testing.judge import Answer, Delay, ScriptedJudge
    from safecode_guard.testing.model import (
        ByteVocabulary,
        Replies,
        Scene,
        ScriptedBranch,
        ScriptedPrompts,
        ScriptedVLM,
    )
    from safecode_guard.testing.server import ScriptedServer
    from safecode_guard.testing.serving import serving

__all__ = [
    "Answer",
    "ByteVocabulary",
    "Delay",
    "EventRecorder",
    "ModelEndpoint",
    "RecordedEvent",
    "Replies",
    "Scene",
    "ScriptedBranch",
    "ScriptedJudge",
    "ScriptedPrompts",
    "ScriptedServer",
    "ScriptedVLM",
    "serving",
]

_LAZY = {
    "ModelEndpoint": "endpoint",
    "EventRecorder": "events",
    "RecordedEvent": "events",
    "Answer": "judge",
    "Delay": "judge",
    "ScriptedJudge": "judge",
    "ByteVocabulary": "model",
    "Replies": "model",
    "Scene": "model",
    "ScriptedBranch": "model",
    "ScriptedPrompts": "model",
    "ScriptedVLM": "model",
    "ScriptedServer": "server",
    "serving": "serving",
}
"""Module of each name."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
