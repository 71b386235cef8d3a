"""The application: its commands, its options, and how errors are told."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

import safecode_guard
from safecode_guard.bench.options import WrongOption
from safecode_guard.cli import exits, screen
from safecode_guard.cli.ask import ask, check
from safecode_guard.cli.audits import audit_app
from safecode_guard.cli.benches import PASS_ON, bench_app, calibrate, ras_app
from safecode_guard.cli.demo import demo
from safecode_guard.cli.doctor import doctor
from safecode_guard.cli.policies import policy_app
from safecode_guard.cli.refusals import refusals
from safecode_guard.cli.serve import serve
from safecode_guard.cli.vllm import vllm_app
from safecode_guard.errors import GuardError

_Wrong = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])
"""Whatever typer's parser raises."""


class _Reporting(TyperGroup):
    """Commands whose errors are a line and a hint, and a traceback only with --debug."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; what was typed wrongly is told like every other error."""
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except _Wrong as wrong:
            if not standalone_mode:
                raise
            context = getattr(wrong, "ctx", None)
            hint = f"See `{context.command_path} --help`." if context else None
            if said := wrong.format_message():  # nothing where help was asked for by no argument
                screen.print_problem(said, hint)
            code = exits.USAGE
        if standalone_mode:
            sys.exit(code or exits.OK)
        return code

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (GuardError, OSError) as error:
            if ctx.params.get("debug") or isinstance(error, BrokenPipeError):
                raise
            if isinstance(error, GuardError):
                screen.print_error(error)
            else:
                screen.print_problem(_of_system(error), None)
            wrong = isinstance(error, WrongOption)
            raise typer.Exit(exits.USAGE if wrong else exits.ERROR) from None


def _of_system(error: OSError) -> str:
    """Return what the system says of a file; others' errors come with pages of advice."""
    if error.filename is None:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{error.strerror}: {str(error.filename)!r}."


app = typer.Typer(
    name="safecode-guard",
    cls=_Reporting,
    help="A guardrail for agents that see.",
    epilog=" ".join(exits.HELP.split()),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(ask)
app.command()(check)
app.add_typer(policy_app, name="policy")
app.add_typer(audit_app, name="audit")
app.command()(doctor)
app.command(context_settings=PASS_ON, add_help_option=False)(calibrate)
app.add_typer(ras_app, name="ras")
app.command()(refusals)
app.command()(serve)
app.add_typer(vllm_app, name="vllm")
app.add_typer(bench_app, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"safecode-guard {safecode_guard.__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """A guardrail for agents that see."""


COMMANDS = (
    *("", "demo", "ask", "check", "policy", "policy show", "policy schema", "policy validate"),
    *(
        "audit",
        "audit verify",
        "audit tail",
        "audit stats",
        "doctor",
        "calibrate",
        "ras",
        "ras fit",
    ),
    "refusals",
    *("serve", "vllm", "vllm flags", "bench"),
)


def main() -> None:
    """Run the command line."""
    app()


def command_help() -> Iterator[tuple[str, str]]:
    """Yield each command's name and the text of its help, in 80 columns."""
    from typer.testing import CliRunner

    runner = CliRunner()
    environment = {"TERMINAL_WIDTH": "80", "NO_COLOR": "1", "TERM": "dumb"}
    for name in COMMANDS:
        done = runner.invoke(
            app, [*name.split(), "--help"], prog_name="safecode-guard", env=environment
        )
        text = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
        yield f"safecode-guard {name}".strip(), text
