"""What the answers of a pair prove, and so what of them may be released.

Nothing of the main's answer is released before the twin's is in. A server without the plug-in
writes neither seal nor halt, so its answers prove nothing, however right they look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from safecode_guard.steering.pairs.spec import PairSpec


@dataclass(frozen=True)
class Sealed:
    """Every guided step was steered: the main's answer stands as it is."""

    tokens: tuple[int, ...]
    guided: int
    """How many of them were steered."""


@dataclass(frozen=True)
class Certified:
    """The pair parted: these tokens were steered, and the next pair goes on from them."""

    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Unproven:
    """Nothing shows that anything was steered: none of it may be released."""


def accept(
    spec: PairSpec, main: Sequence[int], twin: Sequence[int]
) -> Sealed | Certified | Unproven:
    """Return what two finished answers prove.

    Args:
        spec: Of the main.
        main: All tokens of its answer, a stop token at its end included.
        twin: All tokens of the twin's.
    """
    marks = {spec.halt, spec.seal}
    if not twin or twin[-1] not in marks or not marks.isdisjoint(twin[:-1]):
        return Unproven()
    guided = tuple(twin[:-1])
    common = tuple(
        token
        for token, _ in takewhile(lambda pair: pair[0] == pair[1], zip(main, guided, strict=False))
    )
    if twin[-1] == spec.seal and common == guided and marks.isdisjoint(main):
        if _enough(spec, guided):
            return Sealed(tuple(main), len(guided))
        return Unproven()
    return Certified(common)


def _enough(spec: PairSpec, guided: Sequence[int]) -> bool:
    """Return whether a seal may stand behind these tokens."""
    ended = bool(guided) and guided[-1] in spec.eos
    return ended or max(spec.steps, 1) <= len(guided) <= spec.longest
