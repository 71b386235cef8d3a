"""A counter on stderr while a benchmark runs; stdout stays the result's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Show how much has been done; yields what is to be told of each bit of it.

    Libraries' own progress bars, which would fight over the line, are switched off.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:.0f}"))
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda count: progress.advance(task, count)
