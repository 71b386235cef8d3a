"""One table, two forms: on the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

Cells = list[str]
DASH: Final = "-"


def show_table(title: str, columns: Sequence[str], rows: Iterable[Cells]) -> None:
    """Print one table on stdout."""
    table = Table(*columns, title=title, title_justify="left")
    for cells in rows:
        table.add_row(*cells)
    Console().print(table)


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
