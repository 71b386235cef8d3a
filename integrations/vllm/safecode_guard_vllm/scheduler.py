"""Keeps the two requests of a pair in step: a scheduler class of vLLM's, in two bases.

    --scheduler-cls safecode_guard_vllm.scheduler.AsyncPairScheduler        (or PairScheduler)

Two requests practically never sample their first token in one step by themselves, and a logits
processor cannot hold a row. So a lone half waits until its partner comes, both are admitted
together, and each stops one token short of its prompt's end until the other is as far.
The hooks are vLLM's own and not public: tested against the signatures of 0.32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from safecode_guard_vllm.request import spec_of

MOST_WAITING: Final = 4096
"""Lone halves; one more is admitted as it is, and halts."""


class _InStep:
    """What both schedulers do; stands before one of vLLM's."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lone: dict[str, Any] = {}
        """Pair to its half that waits."""
        self._mates: dict[str, Any] = {}
        """Request to its partner, while both are admitted."""
        self._paired: set[str] = set()
        """Pairs of which somebody is admitted."""

    def add_request(self, request: Any) -> None:
        """Admit a request; a guided one together with its partner."""
        spec = _spec(request)
        if spec is None or spec.pair in self._paired:  # a third half: the pair is dead
            return self._admit(request)
        other = self._lone.pop(spec.pair, None)
        if other is None and len(self._lone) < MOST_WAITING:
            self._lone[spec.pair] = request
            return None
        if other is not None:
            if _role(other) != spec.role:
                self._mates |= {request.request_id: other, other.request_id: request}
            self._paired.add(spec.pair)
            self._admit(other)
        return self._admit(request)

    def finish_requests(
        self, request_ids: str | Iterable[str] | None, *args: Any, **more: Any
    ) -> Any:
        """End requests, waiting halves included."""
        if request_ids is not None and not isinstance(request_ids, str):
            request_ids = list(request_ids)
        ids = [request_ids] if isinstance(request_ids, str) else request_ids
        self._lone = {
            pair: request
            for pair, request in self._lone.items()
            if ids is not None and request.request_id not in ids
        }
        return super().finish_requests(request_ids, *args, **more)  # type: ignore[misc]

    def _admit(self, request: Any) -> None:
        super().add_request(request)  # type: ignore[misc]

    def _free_request(self, request: Any, *args: Any, **more: Any) -> Any:
        mate, spec = self._mates.pop(request.request_id, None), _spec(request)
        if spec is not None and (mate is None or mate.request_id not in self._mates):
            self._paired.discard(spec.pair)
        return super()._free_request(request, *args, **more)  # type: ignore[misc]

    def _reserve_prefill_lookahead(
        self, request: Any, num_computed_tokens: int, num_new_tokens: int
    ) -> int:
        """Return how many tokens of a prompt to run now: not its last before the partner's."""
        new: int = super()._reserve_prefill_lookahead(  # type: ignore[misc]
            request, num_computed_tokens, num_new_tokens
        )
        mate = self._mates.get(request.request_id)
        if mate is None or mate.request_id not in self._mates or request.num_output_tokens:
            return new
        last = int(request.num_tokens) - 1
        if new <= 0 or num_computed_tokens + new <= last:
            return new
        if num_computed_tokens == last and mate.num_computed_tokens >= mate.num_tokens - 1:
            return new
        return last - num_computed_tokens


class PairScheduler(_InStep, Scheduler):  # type: ignore[misc]  # vLLM is not installed in checks
    """For ``--no-async-scheduling``."""


class AsyncPairScheduler(_InStep, AsyncScheduler):  # type: ignore[misc]
    """For asynchronous scheduling, vLLM's default."""


def _spec(request: Any) -> Any:
    try:
        return spec_of(request.sampling_params)
    except ValueError:  # admission has refused it; an error here would end the engine
        return None


def _role(request: Any) -> str:
    return str(_spec(request).role)
