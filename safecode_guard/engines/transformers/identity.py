"""A short digest of what a model is, for judge ids and cache keys."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import torch

_NO_IDENTITY: Final = frozenset(
    {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
)
"""Config values that depend on how a model was loaded, not on what it is."""
_PROBED: Final = 8
"""Numbers read of each parameter for the model's id."""


def fingerprint(model: Any, tokens: str) -> str:
    """Return a short digest of config, token table and a few numbers of every parameter."""
    identity = [_identity(model.config.to_dict()), tokens]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        if parameter.device.type != "meta":
            probe = parameter.detach().flatten()[:_PROBED].to("cpu", torch.float32)
            digest.update(probe.numpy().tobytes())
    return digest.hexdigest()[:12]


def _identity(config: Any) -> Any:
    if isinstance(config, dict):
        return {k: _identity(v) for k, v in config.items() if k not in _NO_IDENTITY}
    return config
