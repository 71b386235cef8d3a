"""Row-tokens: how many token positions a model computes, over all rows. Counted, so no noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch


def row_tokens(model: torch.nn.Module, call: Callable[[], object]) -> int:
    """Return the token positions that a call makes a language model compute, padding included.

    Args:
        model: A model of transformers; counted is what enters its decoder's first layer.
        call: What is counted; runs once.
    """
    counted = 0

    def count(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        nonlocal counted
        states = args[0] if args else kwargs["hidden_states"]
        counted += states.shape[0] * states.shape[1]  # [rows, tokens, d]

    layer = _first_layer(model)
    with ExitStack() as stack:
        handle = layer.register_forward_pre_hook(count, with_kwargs=True)
        stack.callback(handle.remove)
        call()
    return counted


def _first_layer(model: Any) -> torch.nn.Module:
    """Return the first layer of the language model, whose name differs between families."""
    decoder = model.get_decoder()
    inner = getattr(decoder, "language_model", decoder)
    layers = getattr(inner, "layers", None) or inner.decoder.layers
    found: torch.nn.Module = layers[0]
    return found
