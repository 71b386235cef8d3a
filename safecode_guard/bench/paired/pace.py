"""Seconds per turn of each row: single turns on the real path, the judge included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle

from safecode_guard.bench.paired.asking import CERTAIN, Answer, Asker, KnownJudge
from safecode_guard.bench.paired.items import Item
from safecode_guard.bench.paired.panel import NO_JUDGE, Panelist
from safecode_guard.bench.paired.rows import JUDGE_ALONE, Row
from safecode_guard.bench.timing import Timing, interleave
from safecode_guard.judges.failsafe import run_judge
from safecode_guard.judges.protocol import Judge, JudgeRequest
from safecode_guard.pipeline.requests import TurnRequest
from safecode_guard.verdict import Judgement

Line = tuple[str, str]
"""Row and judge, by name."""
PLAIN: Line = ("plain", NO_JUDGE)
Lines = Mapping[Line, tuple[Row, Panelist | None]]
"""The lines of a table, each with its row and the judge whose verdicts it is steered by."""


def lines_of(rows: Sequence[Row], panelists: Sequence[Panelist]) -> Lines:
    """Return each row under each judge, and once where no verdict matters."""
    return {
        (row.name, panelist.name if panelist else NO_JUDGE): (row, panelist)
        for row in rows
        for panelist in (panelists if row.judged else [None])
    }


@dataclass(frozen=True)
class Pace:
    """What a turn takes, in CPU seconds on one thread, and over the plain model's."""

    seconds: float
    ratio: float
    """Median over turns of this line's time over the plain model's on the same turn."""


def measure_pace(
    asker: Asker,
    lines: Lines,
    items: Sequence[Item],
    *,
    on_call: Callable[[], None] = lambda: None,
) -> dict[Line, Pace]:
    """Time each line on the same turns, one turn at a time, all lines in turn.

    Args:
        asker: What answers.
        lines: What is timed; the plain row must be among them.
        items: The turns, in order; one round each.
        on_call: Told after each call.
    """
    routes = {line: route(asker, row, panelist, items) for line, (row, panelist) in lines.items()}
    named = {" ".join(line): route for line, route in routes.items()}
    timings = interleave(named, rounds=len(items), on_call=on_call)
    plain: Timing = timings[" ".join(PLAIN)]
    return {
        line: Pace(timings[" ".join(line)].median, timings[" ".join(line)].ratio(plain))
        for line in routes
    }


def equally_long(
    items: Sequence[Item],
    mine: Mapping[str, Answer],
    other: Mapping[str, Answer],
    *,
    count: int,
) -> list[Item]:
    """Return up to ``count`` items that two rows answer at equal length, both kinds in turn.

    A refusal is shorter or longer than help, which is no cost of guarding.
    """
    equal = [item for item in items if mine[item.key].tokens == other[item.key].tokens]
    halves = [[item for item in equal if item.kind == kind] for kind in ("safe", "unsafe")]
    mixed = [item for both in zip(*halves, strict=False) for item in both]
    return (mixed or equal or list(items))[:count]


def route(
    asker: Asker, row: Row, panelist: Panelist | None, items: Sequence[Item]
) -> Callable[[], object]:
    """Return a call that answers the next item, and after the last one the first again.

    Args:
        asker: What answers.
        row: The strategy.
        panelist: Its judge; None where no verdict matters.
        items: The turns, in order.
    """
    upcoming = cycle(items)
    judge = panelist.judge if panelist else None
    if row.name == JUDGE_ALONE and judge is not None:
        return partial(_judged, judge, upcoming)
    if judge is None:
        judge = KnownJudge.of([(item, _scripted(panelist, item)) for item in items])
    turns = asker.turns(row, judge)
    requests = (TurnRequest(item.turn, asker.sampling(item)) for item in upcoming)

    def run() -> object:
        result = turns.run([next(requests)])[0]
        if isinstance(result, Exception):
            raise result
        return result

    return run


def _judged(judge: Judge, upcoming: Iterator[Item]) -> Judgement:
    return run_judge(judge, JudgeRequest.of_turn(next(upcoming).turn))


def _scripted(panelist: Panelist | None, item: Item) -> Judgement:
    return CERTAIN if panelist is None else panelist.scripted(item)
