"""What a row costs beside its effect: seconds and calls of single turns, the judge included.

A verdict that the guarded model gives on the answer's own prompt opens no conversation; a judge
with a model of its own is in the seconds, and not in the conversations of the guarded one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from safecode_guard.bench.paired.pace import PLAIN, Line, measure_pace, route
from safecode_guard.bench.public.playing import Player
from safecode_guard.bench.public.registry import DataSet
from safecode_guard.models.protocol import Engine, Session
from safecode_guard.turns.turn import Turn


def measure_costs(
    player: Player, data: DataSet, *, turns: int, on_call: Callable[[], None] = lambda: None
) -> dict[Line, dict[str, float]]:
    """Time every line on the first turns of some items, one at a time and all lines in turn.

    Args:
        player: Its rows and judges; scripted judges cost nothing and are left out.
        data: Whose first items are timed, evenly taken from the whole.
        turns: How many; 0: none is timed.
        on_call: Told after each call.
    """
    lines = {
        line: (row, panelist)
        for line, (row, panelist) in player.lines.items()
        if panelist is None or panelist.judge is not None
    }
    if not turns or PLAIN not in player.lines:
        return {}
    step = max(1, data.count // turns)
    chosen = islice(data.items(), 0, turns * step, step)
    items = [item.asked(item.images(), []) for item in chosen]
    paces = measure_pace(player.asker, lines, items, on_call=on_call)
    found: dict[Line, dict[str, float]] = {}
    for line, (row, panelist) in lines.items():
        answer = route(player.asker, row, panelist, items)
        with _counted(player.asker.model) as calls:
            for _ in items:
                answer()
                on_call()
        found[line] = {
            "seconds_per_turn": round(paces[line].seconds, 4),
            "times_plain": round(paces[line].ratio, 3),
            "conversations_per_turn": round(sum(calls) / len(items), 2),
        }
    return found


@contextmanager
def _counted(engine: Engine) -> Iterator[list[int]]:
    """Count the conversations that are opened on a model meanwhile: answers, probes, verdicts."""
    calls: list[int] = []
    opened = engine.open

    def count(turns: Sequence[Turn], *arguments: Any, **options: Any) -> Session:
        calls.append(len(turns))
        return opened(turns, *arguments, **options)

    vars(engine)["open"] = count
    try:
        yield calls
    finally:
        del vars(engine)["open"]
