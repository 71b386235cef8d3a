"""``safecode-guard bench``: hands over to the benchmarks, which have options of their own."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import typer

from safecode_guard.cli import exits

bench_app = typer.Typer(help="Measure what guarding costs, and what it does.", no_args_is_help=True)

PASS_ON: Final[dict[str, Any]] = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Settings of a command whose options are those of what it hands over to."""


@bench_app.command("speed", context_settings=PASS_ON, add_help_option=False)
def speed(ctx: typer.Context) -> None:
    """Measure the cost: time and tokens against the plain model."""
    _run("speed.run", ctx.args)


@bench_app.command("paired", context_settings=PASS_ON, add_help_option=False)
def paired(ctx: typer.Context) -> None:
    """Measure the effect: the same request over a safe and an unsafe scene."""
    _run("paired.run", ctx.args)


@bench_app.command("run", context_settings=PASS_ON, add_help_option=False)
def public(ctx: typer.Context) -> None:
    """Measure on a public benchmark, from a directory of your own."""
    _run("public.run", ctx.args)


@bench_app.command("calls", context_settings=PASS_ON, add_help_option=False)
def calls(ctx: typer.Context) -> None:
    """Measure the call rail: tool calls in the scenes that they would run in."""
    _run("calls.run", ctx.args)


@bench_app.command("sweep", context_settings=PASS_ON, add_help_option=False)
def sweep(ctx: typer.Context) -> None:
    """Choose a model's steering values, on pairs kept for that."""
    _run("paired.sweep", ctx.args)


ras_app = typer.Typer(help="RAS: steering by the model's own risk.", no_args_is_help=True)


@ras_app.command("fit", context_settings=PASS_ON, add_help_option=False)
def ras_fit(ctx: typer.Context) -> None:
    """Make the prototypes of a model's refusals from labelled turns."""
    _run("ras.run", ctx.args)


def calibrate(ctx: typer.Context) -> None:
    """Fit a judge's probabilities on labelled scenes, and tell what they are worth."""
    _run("calibration.run", ctx.args)


def _run(name: str, arguments: list[str]) -> None:
    # loads torch and transformers, so not before it is asked for
    code = import_module(f"safecode_guard.bench.{name}").main(arguments)
    raise typer.Exit(code or exits.OK)
