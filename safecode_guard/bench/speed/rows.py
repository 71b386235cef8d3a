"""The rows of `speed`: each a way to answer over plain ``generate`` on the same turns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from safecode_guard.bench.speed.counting import row_tokens
from safecode_guard.bench.speed.routes import (
    MORE_TOKENS,
    TURNS,
    Call,
    Pair,
    Routes,
    long_turn,
    turn_of,
)
from safecode_guard.bench.timing import Timing, interleave
from safecode_guard.errors import GuardError, likely


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    meaning: str
    pair: Callable[[Routes], Pair]
    aim: str = ""
    part_of: str = ""
    """The row that is the sum of this one and others; it is measured whole."""


ROWS: Final[Mapping[str, Row]] = {
    "guided": Row("steered turn, no judge", Routes.guided, "<= 1.30"),
    "turn": Row("steered turn, own verdict", lambda r: r.judged(), "<= 1.36"),
    "longer_question": Row(
        "same, question 100 tokens longer", lambda r: r.judged(longer=MORE_TOKENS)
    ),
    "naive": Row("as released by the authors", Routes.naive, ">= 2.5 x guided"),
    "one_view": Row("same turn, one view (alpha 0)", lambda r: r.judged(alpha=0.0), "<= 1.15"),
    "pass": Row("own verdict: pass", lambda r: r.judged("pass"), "<= 1.12"),
    "block": Row("own verdict: block", lambda r: r.judged("block"), "<= 0.45"),
    "streamed": Row("steered turn, own verdict, streamed", Routes.streamed),
    "request_1000": Row(
        "request of 1,000 tokens", lambda r: r.default_question(long_turn(r.model, 1000))
    ),
    "request_4000": Row(
        "request of 4,000 tokens", lambda r: r.default_question(long_turn(r.model, 4000)), "<= 1.85"
    ),
    "pictures_2": Row("2 pictures", lambda r: r.default_question(turn_of(0, pictures=2))),
    "pictures_4": Row("4 pictures", lambda r: r.default_question(turn_of(0, pictures=4))),
    "pictures_8": Row("8 pictures", lambda r: r.default_question(turn_of(0, pictures=8))),
    "conversation_first": Row(
        "conversation: its first turn", Routes.conversation_first, part_of="conversation"
    ),
    "conversation_rest": Row(
        f"conversation: its other {TURNS - 1}", Routes.conversation_rest, part_of="conversation"
    ),
    "batch_8": Row("batch of 8, own verdicts / plain batch", lambda r: r.batch(8), "<= 1.35"),
    "batch_16": Row("batch of 16, own verdicts / plain batch", lambda r: r.batch(16), "<= 1.45"),
}
SUMS: Final[Mapping[str, tuple[str, str]]] = {
    "conversation": (f"conversation: all {TURNS} turns", "<= 0.85")
}
"""Rows that are the sum of others, with their meaning and aim."""
BATCH_GAIN: Final = "batch_gain"
"""A row of another kind: predicted over measured time of a batch."""


@dataclass(frozen=True)
class Figure:
    """What one row measured."""

    ratio: float
    """Median over the rounds of CPU time over that of plain ``generate``."""
    lowest: float
    highest: float
    row_tokens: int
    """Token positions that the model computes, over all rows, padding included."""
    plain_row_tokens: int


def chosen(names: Collection[str]) -> list[str]:
    """Return the rows of these names, in the table's order; all if none is named.

    Raises:
        GuardError: For a name that no row has.
    """
    known = [*dict.fromkeys(row.part_of or name for name, row in ROWS.items()), BATCH_GAIN]
    if unknown := sorted(set(names) - set(known)):
        raise GuardError(f"There is no row {unknown[0]!r}.", hint=likely(unknown[0], known))
    return [name for name in known if not names or name in names]


def calls_of(names: Collection[str]) -> int:
    """Return how many timed calls a round of these rows has."""
    rows = sum(name in names or row.part_of in names for name, row in ROWS.items())
    return 2 * rows + 3 * (BATCH_GAIN in names)


def measured(
    routes: Routes, names: Collection[str], *, rounds: int, on_call: Callable[[], None]
) -> dict[str, Figure]:
    """Measure rows round by round, each beside the plain answers to its own turns.

    Args:
        routes: Over the model.
        names: The rows to measure.
        rounds: Counted rounds.
        on_call: Told after each timed call.
    """
    pairs = {
        name: row.pair(routes)
        for name, row in ROWS.items()
        if name in names or row.part_of in names
    }
    calls: dict[str, Call] = {}
    for name, pair in pairs.items():
        calls |= {_plain(name): pair.plain, name: pair.guarded}
    spent = {
        name: Spent(timing, row_tokens(routes.model.model, calls[name]))
        for name, timing in interleave(calls, rounds=rounds, on_call=on_call).items()
    }
    for total in SUMS.keys() & set(names):
        parts = [name for name in pairs if ROWS[name].part_of == total]
        spent[total] = Spent.sum([spent[name] for name in parts])
        spent[_plain(total)] = Spent.sum([spent[_plain(name)] for name in parts])
    rows = [*pairs, *(name for name in SUMS if name in names)]
    return {name: figure(spent[name], spent[_plain(name)]) for name in rows}


def _plain(name: str) -> str:
    return f"{name}/plain"


@dataclass(frozen=True)
class Spent:
    """What a route costs."""

    timing: Timing
    tokens: int

    @classmethod
    def sum(cls, parts: Sequence[Spent]) -> Spent:
        """Return what routes cost that are run one after the other."""
        rounds = zip(*(part.timing.seconds for part in parts), strict=True)
        return cls(Timing(tuple(map(sum, rounds))), sum(part.tokens for part in parts))


def figure(guarded: Spent, plain: Spent) -> Figure:
    """Return a row's figure."""
    ratios = guarded.timing.ratios(plain.timing)
    return Figure(
        guarded.timing.ratio(plain.timing), min(ratios), max(ratios), guarded.tokens, plain.tokens
    )


def batch_gain(routes: Routes, *, rounds: int, on_call: Callable[[], None]) -> Timing:
    """Return predicted over measured time of a batch of 8, round by round.

    Predicted is the prefill of 16 rows plus the decoding of 8.
    """
    whole, prefill, decode = routes.batch_parts()
    found = interleave(
        {"whole": whole, "prefill": prefill, "decode": decode}, rounds=rounds, on_call=on_call
    )
    spent = zip(*(found[name].seconds for name in ("prefill", "decode", "whole")), strict=True)
    return Timing(tuple((before + after) / whole for before, after, whole in spent))
