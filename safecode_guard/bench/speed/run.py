"""What guarding costs: ratios over plain ``generate``, measured in one interleaved run.

Ratios are of CPU time on one thread, medians over the rounds; absolute times are of this machine.
The default model has random weights: time depends on the shapes of the tensors and not on what
they say. ``--model`` measures your own.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from safecode_guard.bench.options import value_of
from safecode_guard.bench.speed.llava import reference_llava
from safecode_guard.bench.speed.overhead import Overheads, measure_overheads
from safecode_guard.bench.speed.routes import ANSWER_TOKENS, Routes
from safecode_guard.bench.speed.rows import (
    BATCH_GAIN,
    ROWS,
    SUMS,
    Figure,
    batch_gain,
    calls_of,
    chosen,
    measured,
)
from safecode_guard.engines.presence import require_model_at
from safecode_guard.engines.transformers.model import TransformersModel

_RATIOS: Final = ("guided", "turn", "longer_question", "naive")
"""Rows whose ratio stands under a key of its own."""


@dataclass(frozen=True)
class SpeedReport:
    """The figures of one run; ratios are over plain ``generate`` on the same turns."""

    rows: Mapping[str, Figure]
    """By the names of ``--rows``."""
    batch_gain: float | None
    """Predicted over measured time of a batch of 8: prefill of 16 rows plus decoding of 8."""
    overheads: Overheads
    import_s: float
    """``import safecode_guard`` in a fresh process."""
    prompt_tokens: int
    answer_tokens: int
    rounds: int
    machine: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON types; what was not measured is None."""
        found: dict[str, Any] = asdict(self)
        overheads: dict[str, Any] = found.pop("overheads")
        ratios = {f"{name}_ratio": found["rows"].get(name, {}).get("ratio") for name in _RATIOS}
        return ratios | overheads | found


def measure(
    model: TransformersModel,
    *,
    rounds: int = 5,
    rows: Collection[str] = (),
    on_call: Callable[[], None] = lambda: None,
) -> SpeedReport:
    """Measure a model; all rows take some four minutes a round on the reference model.

    Args:
        model: What to measure; its answers must run to 64 tokens.
        rounds: Counted rounds of the interleaved routes.
        rows: Names of the rows to measure; empty: all.
        on_call: Told after each timed call.

    Raises:
        GuardError: If a row is unknown, or would measure something else than it says.
    """
    names, routes = chosen(rows), Routes(model)
    gain = None
    if BATCH_GAIN in names:
        gain = batch_gain(routes, rounds=rounds, on_call=on_call).median
    return SpeedReport(
        rows=measured(routes, names, rounds=rounds, on_call=on_call),
        batch_gain=gain,
        overheads=measure_overheads(),
        import_s=import_seconds(),
        prompt_tokens=len(model.encode([routes.turn]).ids[0]),
        answer_tokens=ANSWER_TOKENS,
        rounds=rounds,
        machine=machine(),
    )


def import_seconds(runs: int = 5) -> float:
    """Return the median seconds of ``import safecode_guard`` in fresh processes."""
    timed = "t = time.perf_counter(); import safecode_guard; print(time.perf_counter() - t)"
    code = f"import time; {timed}"
    command = [sys.executable, "-c", code]
    times = [
        float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        for _ in range(runs)
    ]
    return statistics.median(times)


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    from importlib.metadata import version

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "date": time.strftime("%Y-%m-%d"),
    }


_OTHERS: Final = {
    "batch_gain": ("batch of 8: predicted / measured", ">= 0.95"),
    "check_ms": ("verdict, scripted judge, 96-px PNG", "<= 2"),
    "decode_1080p_ms": ("reading a 1080p JPEG", ""),
    "overhead_ms": ("guarded call around no work", "<= 5"),
    "cached_ms": ("verdict from the cache", "<= 0.2"),
    "import_s": ("import safecode_guard", "<= 0.7"),
}
"""Figures that are no ratio over plain ``generate``: meaning and aim."""

app = typer.Typer(add_completion=False)


@app.command()
def speed(
    model: Annotated[str | None, typer.Option(help="Directory or hub name of your model.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each row.")] = 5,
    rows: Annotated[str, typer.Option(help="Rows to measure, by commas; none: all.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what guarding costs, as ratios over plain generate."""
    torch.set_num_threads(1)
    with value_of("--rows"):
        names = chosen([name.strip() for name in rows.split(",") if name.strip()])
    if model is not None:
        require_model_at(model)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Measuring", total=calls_of(names) * (rounds + 1))
        report = measure(
            _load(model), rounds=rounds, rows=names, on_call=lambda: progress.advance(task)
        )
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
        return
    Console().print(table(report))


def table(report: SpeedReport) -> Table:
    """Return the report as a table for the terminal."""
    machine, values = report.machine, report.to_json()
    rows = Table(
        title=f"{report.prompt_tokens} prompt tokens, {report.answer_tokens} new, "
        f"{report.rounds} rounds",
        caption=f"{machine['processor']}, {machine['threads']} thread, torch {machine['torch']}, "
        f"transformers {machine['transformers']}, {machine['date']}",
    )
    for heading in ("row", "what, over plain", "ratio", "spread", "row-tokens", "plain", "aim"):
        rows.add_column(heading)
    for name, found in report.rows.items():
        meaning, aim = SUMS[name] if name in SUMS else (ROWS[name].meaning, ROWS[name].aim)
        spread = f"{found.lowest:.2f}-{found.highest:.2f}"
        counts = f"{found.row_tokens:,}", f"{found.plain_row_tokens:,}"
        rows.add_row(name, meaning, f"{found.ratio:.2f}", spread, *counts, aim)
    for name, (meaning, aim) in _OTHERS.items():
        if values[name] is not None:
            rows.add_row(name, meaning, f"{values[name]:.3g}", "", "", "", aim)
    return rows


def _load(name: str | None) -> TransformersModel:
    """Return the model to measure; its answers never end early, so that lengths are equal."""
    model = TransformersModel(*reference_llava()) if name is None else TransformersModel.load(name)
    model.vocabulary.eos_ids = frozenset()
    model.model.generation_config.eos_token_id = None
    return model


def main(arguments: list[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    code = app(arguments, prog_name="safecode-guard bench speed", standalone_mode=False)
    return int(code or 0)
