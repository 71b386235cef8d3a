"""``safecode-guard vllm``: how a vLLM server is started so that it steers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safecode_guard.cli import screen
from safecode_guard.cli.options import AsJson
from safecode_guard.engines.vllm.flags import flags, installed, serving_line

vllm_app = typer.Typer(help="Serve a model by vLLM, steered.", no_args_is_help=True)


@vllm_app.callback()
def _group() -> None:
    """Serve a model by vLLM, steered."""


@vllm_app.command("flags")
def print_flags(
    model: Annotated[str, typer.Argument(help="Directory or hub name.")] = "MODEL",
    python: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Interpreter of the server's environment."),
    ] = None,
    sync: Annotated[
        bool, typer.Option("--sync", help="For a server without asynchronous scheduling.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the line that starts a server for the installed version of vLLM.

    Exit code 1 if vLLM or the plug-in is missing, or the version was not tried.
    """
    found = installed(python)
    found.require()
    if as_json:
        shown = {"vllm": found.vllm, "flags": flags(asynchronous=not sync)}
        screen.print_json(shown | {"environment": {"VLLM_USE_V2_MODEL_RUNNER": "0"}})
        return
    typer.echo(serving_line(model, asynchronous=not sync))
