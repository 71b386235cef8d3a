"""What a request may change of the policy: it may narrow it, and never loosen it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from threading import Lock
from typing import Any, Final

from safecode_guard.errors import PolicyError
from safecode_guard.policy import Policy
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.server.outcomes import milder_at
from safecode_guard.taxonomy import STAGES, Stage, severity

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
    stage = milder_at(policy, made)
    if stage is not None:
        raise PolicyError(
            f"With these changes the policy would let more pass at stage {stage!r}.",
            hint="What lies between two thresholds changes its label with them: its action may "
            "not become milder. Away from the input, guide blocks what is not safe.",
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
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, path)
        else:
            yield path


def _is_narrower(path: tuple[str, ...], old: Policy, new: Policy) -> bool:
    if stages := _stages_of_action(path):
        return all(_are_graver(path[-1], old, new, stage) for stage in stages)
    if path == _COUNT and new.images.overflow == "drop_oldest":
        return new.images.max_images == old.images.max_images  # fewer would hide what is dangerous
    compare = _MAY.get(".".join(path))
    return compare is not None and compare(_at(path, old), _at(path, new))


def _stages_of_action(path: tuple[str, ...]) -> tuple[Stage, ...]:
    """Return the stages whose action a path sets; () if it sets none."""
    if len(path) == 2 and path[0] == "actions":
        return STAGES
    if len(path) == 4 and path[0] == "stages" and path[2] == "actions":
        return tuple(stage for stage in STAGES if stage == path[1])
    return ()


def _are_graver(name: str, old: Policy, new: Policy, stage: Stage) -> bool:
    """Return whether an action is nowhere milder at a stage, be it never reached."""
    both = zip(old.every_actions_at(stage), new.every_actions_at(stage), strict=True)
    return all(
        severity(getattr(after, name)) >= severity(getattr(before, name))
        for before, after in both
        if before != "skip" and after != "skip"
    )


def _at(path: tuple[str, ...], policy: Policy) -> Any:
    value: Any = policy
    for name in path:
        value = getattr(value, name)
    return value


def _lower(old: Any, new: Any) -> bool:
    return new is not None and (old is None or bool(new <= old))


def _further_in(*order: Any) -> Comparison:
    return lambda old, new: order.index(new) >= order.index(old)


_COUNT: Final = ("images", "max_images")
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
