"""Stand-ins for vLLM's modules, with the signatures of 0.32; vLLM itself is not installed here."""

from __future__ import annotations

import sys
from enum import Enum, auto
from types import ModuleType
from typing import Any


class LogitsProcessor:
    pass


class MoveDirectionality(Enum):
    UNIDIRECTIONAL = auto()
    SWAP = auto()


class Scheduler:
    def __init__(self) -> None:
        self.admitted: list[Any] = []
        self.ended: list[Any] = []

    def add_request(self, request: Any) -> None:
        self.admitted.append(request)

    def finish_requests(self, request_ids: Any, finished_status: Any) -> list[Any]:
        self.ended.append(request_ids)
        return []

    def _free_request(self, request: Any, delay_free_blocks: bool = False) -> tuple[None, None]:
        return None, None

    def _reserve_prefill_lookahead(
        self, request: Any, num_computed_tokens: int, num_new_tokens: int
    ) -> int:
        return num_new_tokens


class AsyncScheduler(Scheduler):
    pass


for name, members in {
    "vllm.v1.sample.logits_processor": [LogitsProcessor, MoveDirectionality],
    "vllm.v1.worker.gpu.sample.logits_processor": [LogitsProcessor],
    "vllm.v1.core.sched.scheduler": [Scheduler],
    "vllm.v1.core.sched.async_scheduler": [AsyncScheduler],
}.items():
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:count]), ModuleType(".".join(parts[:count])))
    for member in members:
        setattr(sys.modules[name], member.__name__, member)
