"""``safecode-guard policy``: show, describe and validate policies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml

from safecode_guard.cli import screen
from safecode_guard.cli.opening import open_policy
from safecode_guard.cli.options import AsJson, Preset
from safecode_guard.policy import Policy

policy_app = typer.Typer(help="Show, describe and validate policies.", no_args_is_help=True)

File = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FILE]",
        help="Policy file; if not given, SAFECODE_POLICY_FILE or the defaults.",
        show_default=False,
    ),
]


@policy_app.command("show")
def show(file: File = None, preset: Preset = None, as_json: AsJson = False) -> None:
    """Print the policy in force, environment included, in the form of a policy file."""
    policy = open_policy(file, preset=preset)
    values = policy.model_dump(mode="json")
    if as_json:
        screen.print_json({"digest": policy.digest(), "policy": values})
        return
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=80)
    typer.echo(f"# digest {policy.digest()}\n{text}", nl=False)


@policy_app.command("schema")
def schema() -> None:
    """Print the JSON Schema of policies."""
    typer.echo(json.dumps(Policy.model_json_schema(), indent=2))


@policy_app.command("validate")
def validate(file: File = None, preset: Preset = None, as_json: AsJson = False) -> None:
    """Check a policy file together with the environment; exit code 1 if it is invalid."""
    policy = open_policy(file, preset=preset)
    if as_json:
        screen.print_json({"valid": True, "name": policy.name, "digest": policy.digest()})
        return
    screen.out.print(f"Valid: policy {policy.name!r}\ndigest {policy.digest()}", markup=False)
