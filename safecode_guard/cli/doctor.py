"""``safecode-guard doctor``: what is installed, and what can therefore be done here."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import typer
from rich.table import Table
from rich.text import Text

import safecode_guard
from safecode_guard.cli import exits, screen
from safecode_guard.cli.judging import try_judge
from safecode_guard.cli.opening import open_policy
from safecode_guard.cli.options import AsJson, Judge
from safecode_guard.errors import GuardError, UnsupportedFamily
from safecode_guard.settings import SafeCoDeSettings

PACKAGES: Final = ("torch", "transformers", "langchain-core", "pydantic", "pillow", "numpy")
EXTRAS: Final = {
    "tools": "llguidance",
    "remote": "purgatory",
    "serve": "uvicorn",
    "families": "num2words",
    "sharding": "accelerate",
}
OFFLINE: Final = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def doctor(judge: Judge = None, as_json: AsJson = False) -> None:
    """Say what is installed and which model families can load here; loads no weights.

    With --judge that judge is loaded, or its endpoint asked, about a grey picture.

    Exit code 1 if something is missing without which nothing works, or the judge fails.
    """
    with screen.working("Looking around ..."):
        report = examine()
        if judge is not None:
            report["judge"] = found = try_judge(open_policy(judge=judge).judge)
            report["problems"] += [f"judge: {found['error']}"] if "error" in found else []
    if as_json:
        screen.print_json(report)
    else:
        _show(report)
    raise typer.Exit(exits.ERROR if report["problems"] else exits.OK)


def examine() -> dict[str, Any]:
    """Return the report as plain data."""
    packages = {name: _version(name) for name in PACKAGES}
    return {
        "safecode_guard": safecode_guard.__version__,
        "python": platform.python_version(),
        "packages": packages,
        "extras": {extra: _version(package) for extra, package in EXTRAS.items()},
        "torchvision": _torchvision(),
        "devices": devices() if packages["torch"] else [],
        "offline": [name for name in OFFLINE if os.environ.get(name) == "1"],
        "embedded_model": embedded_model(),
        "policy": _policy(),
        "families": families() if packages["torch"] and packages["transformers"] else {},
        "problems": [f"{name} is not installed" for name, found in packages.items() if not found],
    }


def devices() -> list[str]:
    """Return the devices that torch can use here."""
    import torch

    cuda = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *cuda, *mps]


def families() -> dict[str, str | None]:
    """Return each known family with the reason why it cannot load here, None if it can."""
    from safecode_guard.models.families import FAMILIES

    return {family.name: why_not(family) for family in FAMILIES}


def why_not(family: Any) -> str | None:
    """Return why models of a family cannot load here, or None if they can."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    from safecode_guard.engines.transformers.processors import require_packages

    known = set(family.model_types) & set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    if not known:
        return "The transformers installed here has no image-text-to-text model of it."
    try:
        require_packages(family)
    except UnsupportedFamily as error:
        return str(error)
    return None


def embedded_model() -> str | None:
    """Return what is wrong with the embedded model's files, None if they are all there."""
    from safecode_guard.tiny.load import weights_path

    path = weights_path("chat")
    needed = ("config.json", "model.safetensors", "tokenizer.json")
    missing = [name for name in needed if not (path / name).is_file()]
    return f"missing: {', '.join(missing)}" if missing else None


def _policy() -> dict[str, str]:
    try:
        policy = SafeCoDeSettings().policy()
    except GuardError as error:
        return {"error": str(error)}
    return {"name": policy.name, "digest": policy.digest()}


def _torchvision() -> str | None:
    """Return a note on torchvision, which is not needed and must fit torch where it is there."""
    found = _version("torchvision")
    if found is None:
        return None
    torch = _version("torch") or ""
    builds = {name.partition("+")[2] for name in (found, torch)}
    if len(builds) > 1:
        return f"{found}, of another build than torch {torch}: this breaks transformers; remove it"
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _show(report: dict[str, Any]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("safecode-guard", report["safecode_guard"])
    table.add_row("python", report["python"])
    for name, found in report["packages"].items():
        table.add_row(name, found or Text("missing", "red"))
    table.add_row("torchvision", report["torchvision"] or "not installed, not needed")
    for extra, found in report["extras"].items():
        have = f"{EXTRAS[extra]} {found}"
        missing = Text(f"missing: pip install 'safecode-guard[{extra}]'", "yellow")
        table.add_row(f"extra {extra}", have if found else missing)
    table.add_row("devices", ", ".join(report["devices"]))
    table.add_row("offline", ", ".join(report["offline"]) or "no")
    table.add_row("embedded model", report["embedded_model"] or Text("ready", "green"))
    policy = report["policy"]
    table.add_row("policy", policy.get("error") or f"{policy['name']}, {policy['digest'][:12]}")
    if judge := report.get("judge"):
        table.add_row("judge", _judge(judge))
    screen.out.print(table)
    screen.out.print(_family_table(report["families"]))
    for problem in report["problems"]:
        screen.out.print(Text(problem, "bold red"))


def _judge(found: dict[str, Any]) -> str:
    if "error" in found:
        return screen.printable(f"{found['error']} {found['hint'] or ''}".strip())
    sure = "" if found["p_unsafe"] is None else f" (p {found['p_unsafe']:.2f})"
    answer = f"{found['label'] or 'answers'}{sure}"
    return f"{found['id']}: {answer}, by {found['read_by']}, {found['seconds']:.2f} s"


def _family_table(found: dict[str, str | None]) -> Table:
    table = Table(title="Model families", title_justify="left", expand=True)
    table.add_column("family")
    table.add_column("loads here", overflow="fold", ratio=1)
    for name, reason in found.items():
        table.add_row(name, Text("yes", "green") if reason is None else Text(reason))
    return table
