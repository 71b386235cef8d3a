"""A public benchmark's result: tables on the terminal, Markdown, and a page with failures first."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import safecode_guard
from safecode_guard.bench.pages import render
from safecode_guard.bench.public.failures import Failure
from safecode_guard.bench.public.items import Benchmark
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
Tabled = tuple[str, Sequence[str], list[Cells]]


def show(record: Record) -> None:
    """Print a result as tables on stdout."""
    for title, columns, rows in tables(record):
        show_table(title, columns, rows, keys=2)


def show_benchmarks(benchmarks: Sequence[Benchmark]) -> None:
    """Print where each data set is to be had, and what has to be in its directory."""
    for each in benchmarks:
        sys.stdout.write(f"{each.name}: {each.hint}\n")


def markdown(record: Record) -> str:
    """Return a result as Markdown tables."""
    return "\n\n".join([*(markdown_table(*table) for table in tables(record)), _provenance(record)])


def page(record: Record, failures: Sequence[Failure]) -> str:
    """Return a self-contained HTML page: failures, then tables; all text escaped."""
    return render(
        "bench/public/report.html.j2",
        record=record,
        tables=list(tables(record)),
        failures=failures,
        provenance=_provenance(record),
        version=safecode_guard.__version__,
    )


def tables(record: Record) -> Iterator[Tabled]:
    """Yield a result's tables: figures, differences from the plain model, categories, costs."""
    for part in dict.fromkeys(row["part"] for row in record["rows"]):
        rows = [row for row in record["rows"] if row["part"] == part]
        names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
        yield (
            f"{_title(record, part)}: {rows[0]['items']} items",
            ("strategy", "judge", *names, "tokens / item", "unread"),
            [_row_cells(row, names) for row in rows],
        )
        others = [row for row in record["differences"] if row["part"] == part]
        if others:
            yield (
                f"{_title(record, part)}: difference from plain, unit by unit",
                ("strategy", "judge", *names),
                [_difference_cells(row, names) for row in others],
            )
        categories = list(dict.fromkeys(name for row in rows for name in row["categories"]))
        if len(categories) > 1:
            yield (
                f"{_title(record, part)}: {rows[0]['by']} by category",
                ("strategy", "judge", *categories),
                [_category_cells(row, categories) for row in rows],
            )
    if record["costs"]:
        yield (
            "Costs of single turns, the judge included",
            ("strategy", "judge", "s / turn", "x plain", "conversations / turn"),
            [_cost_cells(row) for row in record["costs"]],
        )


def _title(record: Record, part: str) -> str:
    return f"{record['title']}, {part}" if part else str(record["title"])


def _row_cells(row: Record, names: Sequence[str]) -> Cells:
    metrics = row["metrics"]
    ungraded = [f"{name} {count}" for name, count in row["ungraded"].items() if count]
    ungraded += [f"questions {row['unread']}"] if row["unread"] else []
    return [
        row["strategy"],
        row["judge"],
        *(
            spread(metrics[name]["value"], metrics[name]["ci95"]) if name in metrics else DASH
            for name in names
        ),
        number(row["tokens_per_item"]),
        ", ".join(ungraded) or DASH,
    ]


def _difference_cells(row: Record, names: Sequence[str]) -> Cells:
    metrics = row["metrics"]
    return [
        row["strategy"],
        row["judge"],
        *(
            f"{metrics[name]['points']:+.1f} ({between(metrics[name]['ci95'])})"
            if name in metrics
            else DASH
            for name in names
        ),
    ]


def _category_cells(row: Record, categories: Sequence[str]) -> Cells:
    return [
        row["strategy"],
        row["judge"],
        *(number(row["categories"].get(name)) for name in categories),
    ]


def _cost_cells(row: Record) -> Cells:
    return [
        row["strategy"],
        row["judge"],
        number(row["seconds_per_turn"], 3),
        number(row["times_plain"], 2),
        number(row["conversations_per_turn"], 2),
    ]


def _provenance(record: Record) -> str:
    """Return of what the figures are, in one line."""
    weights = [f"{name} {each['sha256'][:12]}" for name, each in record["weights"].items()]
    told = [f"Data {record['data'][:12]}", *(["weights " + ", ".join(weights)] if weights else [])]
    if record["grader"]:
        told.append(f"grader {record['grader']['id']} ({', '.join(record['grader']['rubrics'])})")
    for name, what in (("left_out", "left out"), ("doubled", "doubled")):
        told += [f"{record[name]} items {what}"] if record[name] else []
    return "; ".join(told) + ".\n"
