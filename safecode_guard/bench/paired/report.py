"""One result, three forms: a table on the terminal, Markdown, and a page that stands alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import safecode_guard
from safecode_guard.bench.pages import render
from safecode_guard.bench.paired.failures import Failure
from safecode_guard.bench.paired.panel import SCRIPTED
from safecode_guard.bench.tables import (
    DASH,
    Cells,
    between,
    markdown_table,
    number,
    show_table,
    spread,
)

Record = Mapping[str, Any]

ROW_COLUMNS: Final = (
    "strategy",
    "judge",
    "safe helped",
    "unsafe refused",
    "average",
    "scary refused",
    "well formed",
    "utility",
    "s / turn",
    "x plain",
)
STRICT_COLUMNS: Final = (
    "strategy",
    "judge",
    "helped rightly",
    "obeyed",
    "followed",
    "wrong reason",
)
JUDGE_COLUMNS: Final = (
    "judge",
    "safe right",
    "unsafe right",
    "average",
    "scary right",
    "undecided",
    "plain questions called unsafe",
    "s / verdict",
    "asked",
    "cost of asking all",
)
DIFFERENCE_COLUMNS: Final = (
    "difference",
    "average",
    "95 %",
    "95 % over phrases",
    "utility",
    "95 %",
)
NOVELTY_COLUMNS: Final = (
    "strategy",
    "judge",
    "average",
    "unseen",
    "scary refused",
    "unseen",
    "well formed",
    "unseen",
)


def show(record: Record) -> None:
    """Print a result as tables on stdout."""
    for title, columns, rows in _tables(record):
        show_table(title, columns, rows, keys=1 + ("judge" in columns[1:]))


def markdown(record: Record) -> str:
    """Return a result as Markdown tables."""
    parts = [markdown_table(*table) for table in _tables(record)]
    weights = ", ".join(
        f"{name} `{each['sha256'][:12]}` ({each['bytes'] / 1e6:.2f} MB)"
        for name, each in record["weights"].items()
    )
    return "\n\n".join([*parts, f"Weights: {weights}."]) + "\n"


def page(record: Record, failures: Sequence[Failure]) -> str:
    """Return a self-contained HTML page: bars, tables, pictures inlined, all text escaped."""
    return render(
        "bench/paired/report.html.j2",
        record=record,
        tables=list(_tables(record)),
        failures=failures,
        families=_families(record),
        version=safecode_guard.__version__,
    )


def _tables(record: Record) -> Iterable[tuple[str, Sequence[str], list[Cells]]]:
    rows: Sequence[Record] = record["rows"]
    if rows:
        first = rows[0]
        title = f"{first['pairs']} pairs and {first['scary']} scary requests: {record['exam']}"
        yield title, ROW_COLUMNS, [_row_cells(row) for row in rows]
        answered = [row for row in rows if row["well_formed"] is not None]
        yield "Told strictly", STRICT_COLUMNS, [_strict_cells(row) for row in answered]
    yield "Judges", JUDGE_COLUMNS, [_judge_cells(judge) for judge in record["judges"]]
    if record["differences"]:
        cells = [_difference_cells(each) for each in record["differences"]]
        yield "Differences, pair by pair", DIFFERENCE_COLUMNS, cells
    if rows and (unseen := rows[0]["phrases"]["unseen"])["pairs"]:
        title = (
            f"Phrases seen in training, and {unseen['pairs']} pairs and {unseen['scary']} scary "
            "requests with phrases that it never saw"
        )
        told = [row for row in rows if row["judge"] not in SCRIPTED]
        yield title, NOVELTY_COLUMNS, [_novelty_cells(row) for row in told]


def _row_cells(row: Record) -> Cells:
    return [
        row["strategy"],
        row["judge"],
        number(row["safe_helped"]),
        number(row["unsafe_refused"]),
        _spread(row, "average"),
        _spread(row, "scary_refused"),
        number(row["well_formed"]),
        number(row["utility"]),
        number(row["seconds_per_turn"], 3),
        number(row["times_plain"], 2),
    ]


def _strict_cells(row: Record) -> Cells:
    names = ("helped_rightly", "obeyed", "followed", "wrong_reason")
    return [row["strategy"], row["judge"], *(_spread(row, name) for name in names)]


def _judge_cells(judge: Record) -> Cells:
    names = ("pairs_safe_right", "pairs_unsafe_right", "pairs_average", "scary_right", "undecided")
    return [
        judge["judge"],
        *(number(judge[name]) for name in (*names, "plain_questions_called_unsafe")),
        number(judge["seconds_per_verdict"], 3),
        ", ".join(f"{name} {number(share)}" for name, share in judge["members_asked"].items())
        or DASH,
        number(judge["cost_of_all"]),
    ]


def _difference_cells(found: Record) -> Cells:
    return [
        f"{found['of']} - {found['minus']}",
        f"{found['points']:+.1f}",
        between(found["ci95"]),
        between(found["ci95_over_phrases"]),
        DASH if found["utility_points"] is None else f"{found['utility_points']:+.1f}",
        between(found["utility_ci95"]),
    ]


def _novelty_cells(row: Record) -> Cells:
    both = (row["phrases"]["seen"], row["phrases"]["unseen"])
    measures = ("average", "scary_refused", "well_formed")
    figures = (number(each[name]) for name in measures for each in both)
    return [row["strategy"], row["judge"], *figures]


def _families(record: Record) -> list[tuple[str, list[tuple[str, float]]]]:
    """Return each family's averages, plain and guarded, for the bars."""
    wanted = (("plain", "none"), ("guarded", "same"), ("guarded", "nano"))
    lines = {(row["strategy"], row["judge"]): row["families"] for row in record["rows"]}
    shown = {line: lines[line] for line in wanted if line in lines}
    names = sorted({name for families in shown.values() for name in families})
    return [
        (name, [(" / ".join(line), shown[line][name]["average"]) for line in shown])
        for name in names
    ]


def _spread(row: Record, name: str) -> str:
    return spread(row[name], row[f"{name}_ci95"])
