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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from safecode_guard.bench.speed.llava import reference_llava
from safecode_guard.bench.speed.overhead import Overheads, measure_overheads
from safecode_guard.bench.speed.routes import ANSWER_TOKENS, Routes
from safecode_guard.bench.timing import Timing, interleave
from safecode_guard.engines.transformers.model import TransformersModel


@dataclass(frozen=True)
class SpeedReport:
    """The figures of one run; ratios are over plain ``generate`` of the same answer length."""

    guided_ratio: float
    """A guided turn without a judge."""
    turn_ratio: float
    """A guided turn with a verdict of the same model, its question 64 tokens long."""
    longer_question_ratio: float
    """The same with 100 more tokens in the question."""
    naive_ratio: float
    """Guided decoding as the authors released it."""
    batch_gain: float
    """Predicted over measured time of a batch of 8: prefill of 16 rows plus decoding of 8."""
    check_ms: float
    """A verdict by a scripted judge on a 96-px PNG, reading the image included."""
    decode_1080p_ms: float
    """Reading a 1080p JPEG."""
    overhead_ms: float
    """A guarded call around a model and a judge that take no time."""
    cached_ms: float
    """A verdict from the judgement cache, the request's hash included."""
    import_s: float
    """``import safecode_guard`` in a fresh process."""
    prompt_tokens: int
    answer_tokens: int
    rounds: int
    machine: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON types."""
        return asdict(self)


def measure(
    model: TransformersModel,
    *,
    rounds: int = 5,
    on_call: Callable[[], None] = lambda: None,
) -> SpeedReport:
    """Measure a model; takes about two minutes on the reference model.

    Args:
        model: What to measure; its answers must run to 64 tokens.
        rounds: Counted rounds of the interleaved routes.
        on_call: Told after each timed call.
    """
    routes = Routes(model)
    overheads: Overheads = measure_overheads()
    timings = interleave(routes.named(), rounds=rounds, on_call=on_call)
    plain = timings["plain"]
    return SpeedReport(
        guided_ratio=timings["guided"].ratio(plain),
        turn_ratio=timings["turn"].ratio(plain),
        longer_question_ratio=timings["longer_question"].ratio(plain),
        naive_ratio=timings["naive"].ratio(plain),
        batch_gain=_gain(timings),
        check_ms=overheads.check_ms,
        decode_1080p_ms=overheads.decode_1080p_ms,
        overhead_ms=overheads.overhead_ms,
        cached_ms=overheads.cached_ms,
        import_s=import_seconds(),
        prompt_tokens=len(model.encode([routes.turn]).ids[0]),
        answer_tokens=ANSWER_TOKENS,
        rounds=rounds,
        machine=machine(),
    )


def _gain(timings: dict[str, Timing]) -> float:
    rounds = zip(
        timings["prefill_16"].seconds,
        timings["decode_8"].seconds,
        timings["batch"].seconds,
        strict=True,
    )
    return statistics.median((prefill + decode) / whole for prefill, decode, whole in rounds)


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


_TARGETS = {
    "guided_ratio": "<= 1.30",
    "turn_ratio": "<= 1.45",
    "naive_ratio": ">= 2.5 x guided",
    "batch_gain": ">= 0.95",
    "check_ms": "<= 2",
    "overhead_ms": "<= 5",
    "cached_ms": "<= 0.2",
    "import_s": "<= 0.7",
}
_MEANINGS = {
    "guided_ratio": "guided turn, no judge / plain",
    "turn_ratio": "guided turn, own verdict / plain",
    "longer_question_ratio": "same, question 100 tokens longer",
    "naive_ratio": "as released by the authors / plain",
    "batch_gain": "batch of 8: predicted / measured",
    "check_ms": "verdict, scripted judge, 96-px PNG",
    "decode_1080p_ms": "reading a 1080p JPEG",
    "overhead_ms": "guarded call around no work",
    "cached_ms": "verdict from the cache",
    "import_s": "import safecode_guard",
}

app = typer.Typer(add_completion=False)


@app.command()
def speed(
    model: Annotated[str | None, typer.Option(help="Directory or hub name of your model.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each route.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what guarding costs, as ratios over plain generate."""
    torch.set_num_threads(1)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Measuring", total=8 * (rounds + 1))
        report = measure(_load(model), rounds=rounds, on_call=lambda: progress.advance(task))
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
    rows.add_column("figure")
    rows.add_column("what")
    rows.add_column("value", justify="right")
    rows.add_column("aim")
    for name, meaning in _MEANINGS.items():
        rows.add_row(name, meaning, f"{values[name]:.3g}", _TARGETS.get(name, ""))
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
