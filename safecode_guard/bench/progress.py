"""A counter on stderr while a benchmark runs; stdout stays the result's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def counting(what: str, *, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show how much has been done; yields what is to be told of each bit of it.

    With a ``total`` it also shows how much there is, and about how long the rest takes.

    Libraries' own progress bars, which would fight over the line, are switched off.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    done = "{task.description} {task.completed:.0f}"
    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn(done), TimeElapsedColumn()]
    if total is not None:
        columns[1] = TextColumn(f"{done} of {total}")
        columns += [TextColumn("left"), TimeRemainingColumn(compact=True)]
    console = Console(stderr=True)
    hidden = not console.is_terminal  # where it would be a line of nothing
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
