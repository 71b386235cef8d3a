"""Which requests are steered, and what else these may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from safecode_guard.steering.pairs.spec import PairSpec

FIELD: Final = "safecode"
"""Of ``vllm_xargs``."""
_PLAIN: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "temperature": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_tokens": (0,),
    "structured_outputs": (None,),
    "logit_bias": (None, {}),
    "allowed_token_ids": (None, []),
    "bad_words": (None, []),
    "thinking_token_budget": (None,),
    "trace_decode_token_ids": (None,),
    "repetition_detection": (None,),
}
"""Options that would change guided tokens behind the plug-in's back, and their values for none."""


def spec_of(params: Any) -> PairSpec | None:
    """Return the spec of a request; None: it is not steered.

    Raises:
        ValueError: If it has one that cannot be read.
    """
    text = (getattr(params, "extra_args", None) or {}).get(FIELD)
    if text is None:
        return None
    return _read(text) if isinstance(text, str) else PairSpec.from_text(text)


def check_params(params: Any) -> None:
    """Refuse a request that cannot be steered as it asks to be.

    Raises:
        ValueError: In one sentence; vLLM makes HTTP 400 of it.
    """
    spec = spec_of(params)
    if spec is None:
        return
    for name, values in _PLAIN.items():
        if getattr(params, name, values[0]) not in values:
            raise ValueError(f"safecode: {name} cannot be set on a guided request")
    stops = set(getattr(params, "stop_token_ids", None) or ())
    if spec.halt not in stops:
        raise ValueError("safecode: stop_token_ids lack the halt token")
    if spec.role == "twin":
        _check_twin(spec, params, stops)


def _check_twin(spec: PairSpec, params: Any, stops: set[int]) -> None:
    if spec.seal not in stops:
        raise ValueError("safecode: the twin's stop_token_ids lack the seal")
    if not getattr(params, "ignore_eos", False) or not stops.isdisjoint(spec.eos):
        raise ValueError("safecode: the twin must not stop at the end of the answer")
    most = getattr(params, "max_tokens", None)
    if most is not None and most <= spec.most:
        raise ValueError("safecode: the twin's max_tokens leave no room for the seal")


@lru_cache(maxsize=512)
def _read(text: str) -> PairSpec:
    return PairSpec.from_text(text)
