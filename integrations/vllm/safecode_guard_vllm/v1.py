"""The pairs behind the interface of vLLM's V1 model runner.

--logits-processors safecode_guard_vllm.v1:SafeCoDe
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessor, MoveDirectionality

from safecode_guard_vllm.batch import Batch
from safecode_guard_vllm.request import check_params


class SafeCoDe(LogitsProcessor):  # type: ignore[misc]  # vLLM is not installed where this is checked
    """Steers guided requests; all others it leaves alone."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse what cannot be steered; see `check_params`."""
        check_params(sampling_params)

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        """Refuse an engine whose steps are not one token each."""
        if getattr(vllm_config, "speculative_config", None) is not None:
            raise ValueError("safecode: guided requests cannot be decoded speculatively")
        self._batch = Batch()

    def is_argmax_invariant(self) -> bool:
        """Steering changes which token is best."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the requests through the batch."""
        if batch_update is None:
            return
        for index in batch_update.removed:
            self._batch.remove(index)
        for index, params, _prompt, written in batch_update.added:
            self._batch.add(index, params, written)
        for source, target, direction in batch_update.moved:
            self._batch.move(source, target, swap=direction == MoveDirectionality.SWAP)

    def apply(self, logits: Tensor) -> Tensor:
        """Steer one step, float32 [batch, n], in place; never raises."""
        return self._batch.apply(logits)
