"""One turn through all stages: route, judge, verdict, steering, decoding. No LangChain in it."""

from safecode_guard.pipeline.examiner import Examiner, subject_of
from safecode_guard.pipeline.factory import make_examiner
from safecode_guard.pipeline.guarded import Pipeline
from safecode_guard.pipeline.requests import TurnEvent, TurnRequest, TurnResult

__all__ = [
    "Examiner",
    "Pipeline",
    "TurnEvent",
    "TurnRequest",
    "TurnResult",
    "make_examiner",
    "subject_of",
]
