"""What a request may change of the policy: it may narrow it, and never loosen it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from threading import Lock
from typing import Any, Final

from safecode_guard.errors import PolicyError
from safecode_guard.policy import Policy
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.taxonomy import ACTIONS, STAGES, Stage, severity

Comparison = Callable[[Any, Any], bool]
"""Whether a new value lets no more pass than an old one does."""


def narrowed(policy: Policy, overrides: Mapping[str, Any]) -> Policy:
    """Return a policy with overrides that let no more pass than it does itself.

    Raises:
        PolicyError: If an override is invalid, or would let more pass.
    """
    made = policy.updated(**overrides)
    for path in _leaves(overrides):
        if not _is_narrower(path, policy, made):
            raise PolicyError(
                f"A request cannot change the policy's {'.'.join(path)} like this.",
                hint="It may ask for graver actions, lower thresholds and limits, and for more "
                "to be judged.",
            )
    return made


class Narrowed:
    """The guards under narrowed policies: the newest are kept, around one model and judge."""

    def __init__(self, guard: SafeCoDeGuard, *, most: int) -> None:
        self._guard, self._most = guard, most
        self._kept: OrderedDict[str, SafeCoDeGuard] = OrderedDict()
        self._lock = Lock()

    def guard(self, overrides: Mapping[str, Any]) -> SafeCoDeGuard:
        """Return the guard under the policy with these overrides; see `narrowed`."""
        if not overrides:
            return self._guard
        policy = narrowed(self._guard.policy, overrides)
        key = policy.digest()
        with self._lock:
            made = self._kept.pop(key, None) or self._guard.under(policy)
            self._kept[key] = made
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return made


def _leaves(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        path = (*above, str(key))
        if isinstance(value, Mapping):
            yield from _leaves(value, path)
        else:
            yield path


def _is_narrower(path: tuple[str, ...], old: Policy, new: Policy) -> bool:
    if _is_action(path):  # it may hold at several stages, under what these say themselves
        return all(_graver_at(stage, path[-1], old, new) for stage in STAGES)
    compare = _MAY.get(".".join(path))
    return compare is not None and compare(_at(path, old), _at(path, new))


def _is_action(path: tuple[str, ...]) -> bool:
    """Return whether a path sets what follows from an outcome, everywhere or at one stage."""
    return path[:-1] == ("actions",) or (
        len(path) == 4 and (path[0], path[2]) == ("stages", "actions")
    )


def _graver_at(stage: Stage, outcome: str, old: Policy, new: Policy) -> bool:
    given = old.actions_at(stage), new.actions_at(stage)
    return "skip" not in given and _graver(*(getattr(each, outcome) for each in given))


def _at(path: tuple[str, ...], policy: Policy) -> Any:
    value: Any = policy
    for name in path:
        value = getattr(value, name)
    return value


def _graver(old: Any, new: Any) -> bool:
    return new in ACTIONS and severity(new) >= severity(old)


def _lower(old: Any, new: Any) -> bool:
    return new is not None and (old is None or bool(new <= old))


def _further_in(*order: Any) -> Comparison:
    return lambda old, new: order.index(new) >= order.index(old)


_MAY: Final[Mapping[str, Comparison]] = {
    "thresholds.unsafe": _lower,
    "thresholds.safe": _lower,
    "stages.input.when": _further_in("images", "always"),
    "stages.tool_call.when": _further_in("images", "always"),
    "stages.tool_result.when": _further_in("images", "always"),
    "stages.output.when": _further_in("never", "unsafe", "always"),
    "images.max_bytes": _lower,
    "images.max_pixels": _lower,
    "images.max_images": _lower,
    "images.overflow": _further_in("drop_oldest", "refuse"),
    "images.animated": _further_in("sample", "reject"),
    "deadline_s": _lower,
}
