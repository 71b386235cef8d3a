"""``safecode-guard audit``: check, show and sum up a log of verdicts."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from safecode_guard.audit import entries, statistics_of, verify
from safecode_guard.cli import exits, screen
from safecode_guard.cli.options import AsJson
from safecode_guard.errors import AuditError

audit_app = typer.Typer(help="Check, show and sum up an audit log.", no_args_is_help=True)

Log = Annotated[
    Path,
    typer.Argument(
        metavar="LOG", dir_okay=False, help="The log's file; those put aside are found by it."
    ),
]


@audit_app.command("verify")
def verify_log(log: Log, as_json: AsJson = False) -> None:
    """Check that no line was changed, removed or inserted; exit code 1 if one was."""
    found = verify(log)
    if as_json:
        screen.print_json(
            {
                "sound": found.sound,
                "entries": found.entries,
                "head": found.head,
                "torn": list(found.torn),
                "broken": list(found.broken),
            }
        )
    else:
        state = "Sound" if found.sound else "BROKEN"
        screen.out.print(f"{state}: {found.entries} verdicts\nhead {found.head}", markup=False)
        for where in found.torn:
            screen.out.print(f"torn line at {where}: its writer was killed", markup=False)
        for where in found.broken:
            screen.out.print(f"line {where} is not what was written there", markup=False)
    raise typer.Exit(exits.OK if found.sound else exits.ERROR)


@audit_app.command("tail")
def tail(
    log: Log,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Print the newest verdicts of a log, the newest last."""
    _require_verdicts(log)
    newest = deque((e.verdict for e in entries(log) if e.verdict is not None), maxlen=count)
    for verdict in newest:
        if as_json:
            typer.echo(json.dumps(verdict.to_json()))
        else:
            when = f"{verdict.created_at:%Y-%m-%d %H:%M:%S} {verdict.stage:<11}"
            screen.out.print(when, screen.verdict_line(verdict), markup=False)


@audit_app.command("stats")
def stats(log: Log, as_json: AsJson = False) -> None:
    """Sum a log up: stages, labels, actions, failed checks, latencies."""
    _require_verdicts(log)
    found = statistics_of(log)
    if as_json:
        screen.print_json(found)
        return
    for name, value in found.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        screen.out.print(f"{name.replace('_', ' '):<10} {text}", markup=False)


def _require_verdicts(log: Path) -> None:
    """Refuse a file with lines of which none is a verdict's.

    Raises:
        AuditError: If it is none of a log.
    """
    lines = 0
    for entry in entries(log):
        if entry.verdict is not None:
            return
        lines += 1
    if lines:
        raise AuditError(
            f"{str(log)!r} holds no verdict that can be read.",
            hint="Name a log; what is wrong with one tells `safecode-guard audit verify`.",
        )
