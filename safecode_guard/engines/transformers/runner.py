"""Running a transformers model: one caller at a time, on what ``generate`` prepared.

`generate` prepares everything that differs between architectures (cache class, multi-dimensional
positions, inner language models, logits processors). A callable ``custom_generate`` receives that
prepared state instead of decoding, and from there on each forward pass is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any

import torch
from torch import Tensor

States = list[Any]
"""What a model keeps on its modules between forward passes, one value per holder."""


class Runner:
    """A model that one caller at a time may run.

    Some models keep state of the running generation on a module (Qwen's ``rope_deltas``). Each
    branch owns its copy, which is put in place for the length of a call.
    """

    def __init__(self, model: Any, state_names: Sequence[str] = ()) -> None:
        self.model = model
        self._lock = RLock()
        self._holders = [
            (module, name)
            for module in model.modules()
            for name in state_names
            if hasattr(module, name)
        ]

    @contextmanager
    def running(self, states: States) -> Iterator[None]:
        """Hold the model, with these module states in force; updates ``states`` in place."""
        with self._lock, torch.inference_mode():
            before = self._exchange(states or [None] * len(self._holders))
            try:
                yield
            finally:
                states[:] = self._exchange(before)

    def _exchange(self, states: States) -> States:
        """Put module states in place and return those that were there."""
        before = [getattr(module, name) for module, name in self._holders]
        for (module, name), value in zip(self._holders, states, strict=True):
            setattr(module, name, value)
        return before


@dataclass(frozen=True, eq=False)
class Captured:
    """What ``generate`` prepared: the module to call, its token ids, its keyword arguments."""

    module: Any
    ids: Tensor
    processors: Callable[[Tensor, Tensor], Tensor]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, module: Any, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> Captured:
        """Let ``module.generate`` prepare a generation and stop before its first forward pass."""

        def take(
            model: Any,
            input_ids: Tensor,
            logits_processor: Any,
            stopping_criteria: Any,
            generation_config: Any,
            **kwargs: Any,
        ) -> Captured:
            return cls(model, input_ids, logits_processor, kwargs)

        prepared: Captured = module.generate(**inputs, custom_generate=take, **options)
        return prepared
