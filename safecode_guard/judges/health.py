"""How well a judge is doing: what it could not answer, how long it took, whether it has changed.

A judge that fails every fifth time, or suddenly finds everything unsafe, still gives verdicts one
by one. Its health is looked at over the newest of them, and stands in each verdict.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from safecode_guard.taxonomy import Label
from safecode_guard.verdict import Judgement

WINDOW: Final = 500
"""Newest judgements that are looked at."""
RECENT: Final = 50
"""Of these, the newest, which are compared with the rest."""
LEAST: Final = 10
"""Judgements before anything is said."""
FAILING: Final = 0.2
"""Share of failed checks among the recent ones from which on a judge counts as degraded."""
DRIFTING: Final = 4.0
"""Standard errors by which the recent share of unsafe verdicts may differ from the earlier."""

Health = Literal["ok", "degraded"]


class Seen(NamedTuple):
    """What is kept of one judgement."""

    label: Label | None
    failed: bool
    unread: bool
    latency_ms: float


@dataclass(frozen=True)
class HealthReport:
    """What the newest judgements of one judge come to; shares are between 0 and 1."""

    judge_id: str
    asked: int
    failed: float
    """Share of checks that failed, unreadable answers among them."""
    unread: float
    """Share of answers that could not be read."""
    undecided: float
    """Share of undecided ones among those that did not fail."""
    unsafe: float
    """Share of unsafe ones among those that did not fail."""
    unsafe_recently: float
    latency_ms: tuple[float, float, float]
    """Median, 95th and 99th percentile, in milliseconds."""
    obeyed: float | None = None
    """Share of the newest steered answers that did as the judge's verdict asked; None: there is
    none yet. It tells of the steering, and makes no judge degraded."""
    problems: tuple[str, ...] = ()

    @property
    def health(self) -> Health:
        """Degraded if there is any problem."""
        return "degraded" if self.problems else "ok"


class JudgeHealth:
    """The newest judgements of one judge; serves threads.

    Example:
        >>> health = JudgeHealth("mine")
        >>> health.report().health
        'ok'
    """

    def __init__(self, judge_id: str) -> None:
        self.judge_id = judge_id
        self._seen: deque[Seen] = deque(maxlen=WINDOW)
        self._obeyed: deque[bool] = deque(maxlen=WINDOW)
        self._problems: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def note(self, judgement: Judgement, label: Label | None) -> None:
        """Remember a fresh judgement, and the label that the policy made of it."""
        unread = judgement.parse_status == "malformed"
        seen = Seen(label, judgement.failed is not None, unread, judgement.latency_ms)
        with self._lock:
            self._seen.append(seen)
            self._problems = _problems(list(self._seen))

    def note_answer(self, *, obeyed: bool) -> None:
        """Remember whether an answer did as the judge's verdict asked."""
        with self._lock:
            self._obeyed.append(obeyed)

    @property
    def health(self) -> Health:
        """How the judge is doing now."""
        return "degraded" if self._problems else "ok"

    def report(self) -> HealthReport:
        """Return what the newest judgements come to."""
        with self._lock:
            seen, obeyed = list(self._seen), list(self._obeyed)
        return HealthReport(
            judge_id=self.judge_id,
            asked=len(seen),
            failed=_share([each.failed for each in seen]),
            unread=_share([each.unread for each in seen]),
            undecided=_share([each.label == "undecided" for each in _answered(seen)]),
            unsafe=_share([each.label == "unsafe" for each in _answered(seen)]),
            unsafe_recently=_share([each.label == "unsafe" for each in _answered(seen[-RECENT:])]),
            latency_ms=_percentiles([each.latency_ms for each in _answered(seen)]),
            obeyed=_share(obeyed) if obeyed else None,
            problems=_problems(seen),
        )


def _problems(seen: Sequence[Seen]) -> tuple[str, ...]:
    recent, earlier = seen[-RECENT:], seen[:-RECENT]
    return tuple(filter(None, (_failing(recent), _drifting(recent, earlier))))


def _failing(recent: Sequence[Seen]) -> str:
    share = _share([each.failed for each in recent])
    if len(recent) < LEAST or share < FAILING:
        return ""
    return f"{share:.0%} of its last {len(recent)} checks failed"


def _drifting(recent: Sequence[Seen], earlier: Sequence[Seen]) -> str:
    """Say whether the share of unsafe verdicts has moved by more than chance moves it."""
    new = [each.label == "unsafe" for each in _answered(recent)]
    old = [each.label == "unsafe" for each in _answered(earlier)]
    if min(len(new), len(old)) < RECENT // 2:
        return ""
    pooled = _share([*new, *old])
    error = math.sqrt(pooled * (1 - pooled) * (1 / len(new) + 1 / len(old)))
    if error == 0 or abs(_share(new) - _share(old)) <= DRIFTING * error:
        return ""
    return f"it finds {_share(new):.0%} unsafe, and found {_share(old):.0%} before"


def _answered(seen: Sequence[Seen]) -> list[Seen]:
    return [each for each in seen if not each.failed]


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits) if hits else 0.0


def _percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    if not values:
        return (0.0, 0.0, 0.0)
    ranked = sorted(values)
    p50, p95, p99 = (ranked[math.ceil(share * len(ranked)) - 1] for share in (0.5, 0.95, 0.99))
    return (p50, p95, p99)
