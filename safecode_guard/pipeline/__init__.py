"""One turn through all stages: route, judge, verdict, steering, decoding. No LangChain in it."""

from safecode_guard.pipeline.examine import Examiner, make_examiner, subject_of
from safecode_guard.pipeline.requests import TurnEvent, TurnRequest, TurnResult
from safecode_guard.pipeline.serve import Pipeline

__all__ = [
    "Examiner",
    "Pipeline",
    "TurnEvent",
    "TurnRequest",
    "TurnResult",
    "make_examiner",
    "subject_of",
]
