"""What each request of a pair says to the server: one JSON text, strictly read.

The text is somebody else's, and one id that is out of range can end a whole engine, so nothing of
it is believed: every field has a type and bounds, and what is not known is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Final, Literal, Self, cast

from safecode_guard.errors import PolicyError
from safecode_guard.steering.pairs.cover import Cover, Place
from safecode_guard.steering.safecode.contrast import Normalise, check_contrast

VERSION: Final = 1
MOST_CHARACTERS: Final = 65_536
MOST_STEPS: Final = 64
MOST_ID: Final = 2**20
"""No vocabulary has more; whether an id is in *this* one is known where the logits are."""
_PAIR: Final = re.compile(r"[0-9a-f]{32,64}")
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "version": (int,),
    "pair": (str,),
    "role": (str,),
    "steps": (int,),
    "most": (int,),
    "alpha": (int, float),
    "normalise": (str,),
    "top_k": (int,),
    "plausibility": (int, float),
    "push": (int, float),
    "eos": (list,),
    "halt": (int,),
    "seal": (int,),
    "cover": (dict, type(None)),
}
_BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "version": (VERSION, VERSION),
    "steps": (0, MOST_STEPS),
    "most": (1, MOST_STEPS),
    "alpha": (0, 100),
    "top_k": (1, MOST_ID),
    "plausibility": (0, 1),
    "push": (-1000, 1000),
    "halt": (0, MOST_ID),
    "seal": (0, MOST_ID),
}

Role = Literal["main", "twin"]
"""``main`` has the real pictures and is the answer; ``twin`` has their second view."""


@dataclass(frozen=True, kw_only=True)
class PairSpec:
    """How two requests are steered together."""

    pair: str
    """Names the pair: at least 128 random bits, in hexadecimal, used once."""
    role: Role
    steps: int
    """Tokens of the answer that are guided, T, from where the pair begins."""
    most: int
    """Tokens that are guided while the text is within a refusal."""
    alpha: float
    normalise: Normalise
    top_k: int
    plausibility: float
    push: float
    eos: tuple[int, ...]
    """Tokens that end the answer."""
    halt: int
    """Written where a step could not be steered; the model itself never writes it."""
    seal: int
    """Written by the twin behind the last guided token, and by nothing else."""
    cover: Cover | None
    """The main's: what is pushed; the twin has none."""

    @cached_property
    def shared(self) -> PairSpec:
        """What must be equal in both."""
        return replace(self, role="main", cover=None)

    @property
    def twin(self) -> PairSpec:
        """The other half's spec: the same without what is pushed."""
        return replace(self, role="twin", cover=None)

    @property
    def longest(self) -> int:
        """Tokens that can be guided at most, the lead before the first word included."""
        return self.most + (self.cover.lead if self.cover else 0)

    @cached_property
    def highest(self) -> int:
        """The highest token id in it."""
        return max(self.halt, self.seal, *self.eos, self.cover.highest if self.cover else -1)

    def over(self, tokens: Sequence[int], place: Place) -> bool:
        """Return whether guidance ends after these tokens, which stand at ``place``."""
        if tokens and tokens[-1] in self.eos:
            return True
        if place.written < self.steps:
            return False
        return place.written >= self.most or not place.inside

    def to_text(self) -> str:
        """Return the spec as the text that a request carries."""
        fields = {name: getattr(self, name) for name in _TYPES if name not in ("version", "cover")}
        cover = self.cover.to_json() if self.cover else None
        return json.dumps(
            {"version": VERSION, **fields, "cover": cover}, separators=(",", ":"), allow_nan=False
        )

    @classmethod
    def from_text(cls, text: object) -> Self:
        """Return the spec that a request carries.

        Raises:
            ValueError: If it is none, in one sentence that says why.
        """
        try:
            data = _checked(_read(text))
            cover = None if data["role"] == "twin" else _cover(json.dumps(data["cover"]))
            del data["version"]
            spec = cls(**data | {"eos": tuple(data["eos"]), "cover": cover})
            if spec.highest > MOST_ID:
                raise ValueError(f"an id is over {MOST_ID}")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"safecode: {error or 'nested too deeply'}") from None
        return spec


@lru_cache(maxsize=32)
def _cover(text: str) -> Cover:
    """Return a cover; most pairs of a server begin with one of a few."""
    return Cover.from_json(json.loads(text))


def _read(text: object) -> dict[str, Any]:
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        raise ValueError(f"no text of at most {MOST_CHARACTERS} characters")
    try:
        data = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(data, dict) or set(data) != set(_TYPES):
        raise ValueError("other fields than a spec has")
    return cast("dict[str, Any]", data)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a field stands twice")
    return data


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _checked(data: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a spec, each by itself and all together within bounds."""
    for name, types in _TYPES.items():
        if type(data[name]) not in types:
            raise ValueError(f"{name} is of the wrong type")
    for name, (low, high) in _BOUNDS.items():
        if not low <= data[name] <= high:
            raise ValueError(f"{name} is not from {low:g} to {high:g}")
    if not _PAIR.fullmatch(data["pair"]):
        raise ValueError("pair is not 32 to 64 hexadecimal digits")
    if data["role"] not in ("main", "twin"):
        raise ValueError("role is neither main nor twin")
    if (data["cover"] is None) != (data["role"] == "twin"):
        raise ValueError("the main has a cover, and the twin has none")
    if data["steps"] > data["most"]:
        raise ValueError("steps are more than most")
    _check_ids(data)
    _check_numbers(data)
    return data


def _check_ids(data: Mapping[str, Any]) -> None:
    eos = data["eos"]
    if len(eos) > 64 or not all(type(i) is int and 0 <= i <= MOST_ID for i in eos):
        raise ValueError("eos is no list of at most 64 ids")
    if data["halt"] == data["seal"] or not {data["halt"], data["seal"]}.isdisjoint(eos):
        raise ValueError("halt, seal and eos are not all different")


def _check_numbers(data: Mapping[str, Any]) -> None:
    if data["normalise"] not in ("none", "rescale", "vcd"):
        raise ValueError("normalise is none of: none, rescale, vcd")
    try:
        check_contrast(alpha=data["alpha"], normalise=data["normalise"])
    except PolicyError as error:
        raise ValueError(error.message) from error
