"""``safecode-guard policy``: show, describe and validate policies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from safecode_guard.cli import screen
from safecode_guard.cli.opening import open_policy
from safecode_guard.cli.options import AsJson, Model, Preset
from safecode_guard.engines.presence import require_model_at
from safecode_guard.policy import DecodingPolicy, Policy

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
def show(
    file: File = None,
    preset: Preset = None,
    effective: Annotated[
        bool, typer.Option("--effective", help="Fill in how a model's answers are steered.")
    ] = False,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Print the policy in force, environment included, in the form of a policy file.

    With --effective what the policy leaves open is filled in: by the model's own record, and then
    by the recipe.
    """
    if model is not None and not effective:
        raise typer.BadParameter("it goes with --effective.", param_hint="'--model'")
    policy = open_policy(file, preset=preset)
    values = policy.model_dump(mode="json")
    sources: dict[str, list[str]] = {}
    if effective:
        filled, sources = in_force(policy.decoding, model)
        values["decoding"] |= filled
    if as_json:
        told = {"digest": policy.digest(), "policy": values}
        screen.print_json(told | ({"sources": sources} if effective else {}))
        return
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=80)
    said = [f"decoding, by {by}: {', '.join(names)}" for by, names in sources.items() if names]
    head = "".join(f"# {line}\n" for line in (f"digest {policy.digest()}", *said))
    typer.echo(f"{head}{text}", nl=False)


def in_force(
    decoding: DecodingPolicy, model: str | None
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return the values that steer a model's answers, and which of them come from where.

    Args:
        decoding: What the policy says.
        model: Directory or hub name; None for the embedded model. No weights are loaded.

    Raises:
        ModelError: If there is no such model.
    """
    if model is not None:
        require_model_at(model)
    # behind a door: they load transformers
    from safecode_guard.engines.transformers.loading import family_at
    from safecode_guard.steering.safecode.parameters import resolve
    from safecode_guard.tiny.load import weights_path

    record = family_at(model or str(weights_path("chat"))).steering
    values = resolve(decoding, record).model_dump(mode="json", exclude={"recipe"})
    sources: dict[str, list[str]] = {"policy": [], "model": [], "recipe": []}
    for name in values:
        if getattr(decoding, name) is not None:
            sources["policy"].append(name)
        elif decoding.recipe == "guarded" and name in record:
            sources["model"].append(name)
        else:
            sources["recipe"].append(name)
    return values, sources


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
