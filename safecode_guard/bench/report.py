"""One result, three forms: a table on the terminal, Markdown, and a page that stands alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from rich.console import Console
from rich.table import Table

import safecode_guard
from safecode_guard.bench.failures import Failure

Record = Mapping[str, Any]
Cells = list[str]
DASH: Final = "-"

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
JUDGE_COLUMNS: Final = (
    "judge",
    "safe right",
    "unsafe right",
    "average",
    "scary right",
    "undecided",
    "plain questions called unsafe",
    "s / verdict",
)
DIFFERENCE_COLUMNS: Final = ("difference of averages", "points", "95 %", "95 % over phrases")
UNSEEN_COLUMNS: Final = ("strategy", "judge", "average", "scary refused")


def show(record: Record) -> None:
    """Print a result as tables on stdout."""
    console = Console()
    for title, columns, rows in _tables(record):
        table = Table(*columns, title=title, title_justify="left")
        for cells in rows:
            table.add_row(*cells)
        console.print(table)


def markdown(record: Record) -> str:
    """Return a result as Markdown tables."""
    parts = []
    for title, columns, rows in _tables(record):
        lines = [f"**{title}**", ""]
        lines += [_line(columns), _line("---" for _ in columns), *map(_line, rows)]
        parts.append("\n".join(lines))
    weights = ", ".join(
        f"{name} `{each['sha256'][:12]}` ({each['bytes'] / 1e6:.2f} MB)"
        for name, each in record["weights"].items()
    )
    return "\n\n".join([*parts, f"Weights: {weights}."]) + "\n"


def page(record: Record, failures: Sequence[Failure]) -> str:
    """Return a self-contained HTML page: bars, tables, pictures inlined, all text escaped."""
    from jinja2 import Environment

    source = files(safecode_guard).joinpath("bench/report.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        source
    )
    return template.render(
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
    yield "Judges", JUDGE_COLUMNS, [_judge_cells(judge) for judge in record["judges"]]
    if record["differences"]:
        cells = [_difference_cells(each) for each in record["differences"]]
        yield "Differences, pair by pair", DIFFERENCE_COLUMNS, cells
    if rows and rows[0]["unseen_phrases"]["pairs"]:
        unseen = rows[0]["unseen_phrases"]
        title = (
            f"Phrases that training never saw alone: {unseen['pairs']} pairs, "
            f"{unseen['scary']} scary requests"
        )
        yield title, UNSEEN_COLUMNS, [_unseen_cells(row) for row in rows]


def _row_cells(row: Record) -> Cells:
    return [
        row["strategy"],
        row["judge"],
        _number(row["safe_helped"]),
        _number(row["unsafe_refused"]),
        _spread(row, "average"),
        _spread(row, "scary_refused"),
        _number(row["well_formed"]),
        _number(row["utility"]),
        _number(row["seconds_per_turn"], 3),
        _number(row["times_plain"], 2),
    ]


def _judge_cells(judge: Record) -> Cells:
    names = ("pairs_safe_right", "pairs_unsafe_right", "pairs_average", "scary_right", "undecided")
    return [
        judge["judge"],
        *(_number(judge[name]) for name in (*names, "plain_questions_called_unsafe")),
        _number(judge["seconds_per_verdict"], 3),
    ]


def _difference_cells(found: Record) -> Cells:
    return [
        f"{found['of']} - {found['minus']}",
        f"{found['points']:+.1f}",
        _range(found["ci95"]),
        _range(found["ci95_over_phrases"]),
    ]


def _unseen_cells(row: Record) -> Cells:
    unseen = row["unseen_phrases"]
    figures = (_number(unseen[name]) for name in ("average", "scary_refused"))
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
    if row[name] is None:
        return DASH
    return f"{row[name]:.1f} ({_range(row[f'{name}_ci95'])})"


def _range(bounds: Sequence[float] | None) -> str:
    return DASH if bounds is None else f"{bounds[0]:.1f} to {bounds[1]:.1f}"


def _number(value: float | None, digits: int = 1) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


def _line(cells: Iterable[str]) -> str:
    escape: Callable[[str], str] = lambda cell: cell.replace("|", "\\|")  # noqa: E731
    return f"| {' | '.join(map(escape, cells))} |"
