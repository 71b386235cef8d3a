"""Fakes to test guarded pipelines with: no weights, no network, every answer scripted.

They implement the library's own protocols, so what is tested is the real guard around them.
"""

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

__all__ = [
    "Answer",
    "ByteVocabulary",
    "Delay",
    "EventRecorder",
    "RecordedEvent",
    "Replies",
    "Scene",
    "ScriptedBranch",
    "ScriptedJudge",
    "ScriptedPrompts",
    "ScriptedVLM",
]
