"""One table, two forms: on the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

Cells = list[str]
DASH: Final = "-"


def show_table(title: str, columns: Sequence[str], rows: Iterable[Cells], *, keys: int = 1) -> None:
    """Print one table on stdout; one that is too wide in parts, each with the key columns.

    Args:
        title: Stands over the first part.
        columns: Headings, which may be broken at their spaces.
        rows: Cells, which are never broken.
        keys: How many of the first columns every part begins with.
    """
    console, body = Console(), list(rows)
    widths = [_width(column, [row[i] for row in body]) for i, column in enumerate(columns)]
    for part in _parts(widths, keys, console.width):
        table = Table(title=title, title_justify="left")
        for i in part:
            table.add_column(columns[i], width=widths[i])
        for row in body:
            table.add_row(*(row[i] for i in part))
        console.print(table)
        title = ""


def _width(column: str, cells: Sequence[str]) -> int:
    return max(map(len, [*column.split(), *cells]), default=1)


def _parts(widths: Sequence[int], keys: int, most: int) -> Iterator[list[int]]:
    """Yield the columns of each part: the keys, and as many others as fit, but at least one."""
    first = list(range(min(keys, len(widths))))
    part = list(first)
    for i in range(len(first), len(widths)):
        if len(part) > len(first) and 1 + sum(widths[k] + 3 for k in [*part, i]) > most:
            yield part
            part = list(first)
        part.append(i)
    yield part


def markdown_table(title: str, columns: Sequence[str], rows: Iterable[Cells]) -> str:
    """Return one table as Markdown."""
    head = [f"**{title}**", "", _line(columns), _line("---" for _ in columns)]
    return "\n".join([*head, *map(_line, rows)])


def number(value: float | None, digits: int = 1) -> str:
    """Write a figure; a dash where there is none."""
    return DASH if value is None else f"{value:.{digits}f}"


def spread(value: float | None, bounds: Sequence[float] | None, digits: int = 1) -> str:
    """Write a figure with its interval; a dash where there is none."""
    if value is None:
        return DASH
    return f"{value:.{digits}f} ({between(bounds)})"


def between(bounds: Sequence[float] | None) -> str:
    """Write an interval; a dash where there is none."""
    return DASH if bounds is None else f"{bounds[0]:.1f} to {bounds[1]:.1f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
