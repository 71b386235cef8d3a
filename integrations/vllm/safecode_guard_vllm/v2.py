"""The pairs behind the interface of vLLM's V2 model runner, its default on CUDA.

--logits-processors safecode_guard_vllm.v2:SafeCoDe
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor

from safecode_guard.steering.pairs.spec import PairSpec
from safecode_guard_vllm.machine import Pairs, Row
from safecode_guard_vllm.request import check_params, spec_of

_log = logging.getLogger(__name__)


class SafeCoDe(LogitsProcessor):  # type: ignore[misc]  # vLLM is not installed where this is checked
    """Steers guided requests; all others it leaves alone."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse what cannot be steered; see `check_params`."""
        check_params(sampling_params)

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        """Refuse an engine whose batches are cut up, or whose steps are not one token each."""
        if getattr(vllm_config, "speculative_config", None) is not None:
            raise ValueError("safecode: guided requests cannot be decoded speculatively")
        parallel = getattr(vllm_config, "parallel_config", None)
        if getattr(parallel, "enable_batch_sharded_sampling", False):
            raise ValueError("safecode: sampling must see the whole batch")
        self._states = req_states
        self._pairs = Pairs()
        self._specs: dict[int, PairSpec] = {}

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Note the spec of a request at its slot, in place of what was there."""
        self._specs.pop(req_idx, None)
        try:
            spec = spec_of(sampling_params)
        except ValueError:  # admission refuses it; if it is here all the same, it is not ours
            _log.exception("A guided request came by without having been checked.")
            return False
        if spec is not None:
            self._specs[req_idx] = spec
        return spec is not None

    def apply(self, logits: Tensor, ctx: Any) -> Tensor:
        """Steer one step, float32 [rows, n], in place; never raises."""
        slots = ctx.expanded_idx_mapping.tolist() if self._specs else []
        if self._specs.keys().isdisjoint(slots):
            return logits
        try:
            rows = list(self._rows(slots, ctx.pos.tolist()))
        except Exception:  # it would end the engine, and everybody's requests with it
            _log.exception("The guided rows of a batch could not be read.")
            rows = [
                Row(index, spec, ())
                for index, slot in enumerate(slots)
                if (spec := self._specs.get(slot))
            ]
            return self._pairs.kill(logits, rows)
        return self._pairs.apply(logits, rows)

    def _rows(self, slots: list[int], positions: list[int]) -> Iterator[Row]:
        """Yield the guided rows, without those of unfinished prefills: their token is dropped."""
        states = self._states
        for index, (slot, position) in enumerate(zip(slots, positions, strict=True)):
            spec, length = self._specs.get(slot), position + 1
            if spec is None or length < int(states.prefill_len.np[slot]):
                continue
            begin = int(states.prompt_len.np[slot])
            yield Row(index, spec, states.all_token_ids.gpu[slot, begin:length].tolist())
