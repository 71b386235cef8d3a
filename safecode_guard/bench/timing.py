"""Interleaved timing: every route once per round, so that a drifting machine hits them alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """Seconds of one route over the rounds, in order."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds of one call."""
        return statistics.median(self.seconds)

    def ratios(self, base: Timing) -> tuple[float, ...]:
        """Return this route's time over another's, round by round."""
        pairs = zip(self.seconds, base.seconds, strict=True)
        return tuple(mine / other for mine, other in pairs)

    def ratio(self, base: Timing) -> float:
        """Return the median over the rounds of this route's time over another's."""
        return statistics.median(self.ratios(base))


def interleave(
    routes: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    clock: Clock = time.process_time,
    on_call: Callable[[], None] = lambda: None,
) -> dict[str, Timing]:
    """Time routes round by round, after one uncounted round.

    Args:
        routes: What to time, by name.
        rounds: Counted rounds.
        clock: CPU time by default: these measurements are made on shared machines.
        on_call: Told after each call, for progress bars.
    """
    seconds: dict[str, list[float]] = {name: [] for name in routes}
    for counted in range(-1, rounds):
        for name, route in routes.items():
            gc.collect()
            started = clock()
            route()
            spent = clock() - started
            if counted >= 0:
                seconds[name].append(spent)
            on_call()
    return {name: Timing(tuple(spent)) for name, spent in seconds.items()}
