"""Options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from safecode_guard.bench.options import why_not_writable
from safecode_guard.errors import likely
from safecode_guard.policy import PRESETS

Pictures = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGE...", exists=True, dir_okay=False, readable=True, help="Picture files."
    ),
]


def _asked(question: str) -> str:
    if question == "-":
        question = _from_stdin()
    if not question.strip():
        raise typer.BadParameter("nothing is asked.")
    return question


def _from_stdin() -> str:
    try:
        return sys.stdin.read().strip() if sys.stdin else ""  # None where it is closed
    except UnicodeDecodeError:
        raise typer.BadParameter("what stands on the standard input is no text.") from None


Question = Annotated[
    str,
    typer.Argument(
        metavar="QUESTION", callback=_asked, help="What is asked; - reads it from stdin."
    ),
]
Answer = Annotated[
    str | None,
    typer.Option("--answer", metavar="TEXT", help="Judge this answer to it, at stage output."),
]
ToolCall = Annotated[
    str | None,
    typer.Option(
        "--tool-call",
        metavar="JSON",
        help='Judge this tool call: {"name": ..., "args": {...}}.',
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="DIR",
        help="Directory or hub name of the model; the embedded tiny one if not given.",
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 ...")
]
Judge = Annotated[
    str | None,
    typer.Option(
        "--judge",
        "-j",
        metavar="NAME",
        help="Another judge: a model's directory; 'light' or 'nano', which are embedded; or "
        "openai:http://host:8000/v1#model.",
    ),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy", "-p", metavar="FILE", help="Policy file, TOML or YAML.", show_default=False
    ),
]


def _preset(name: str | None) -> str | None:
    if name is not None and name not in PRESETS:
        raise typer.BadParameter(f"there is no preset {name!r}. {likely(name, PRESETS)}")
    return name


Preset = Annotated[
    str | None,
    typer.Option(
        "--preset", metavar="NAME", callback=_preset, help="balanced, strict or permissive."
    ),
]


def _writable(path: Path | None) -> Path | None:
    if path is not None and (why := why_not_writable(path)) is not None:
        raise typer.BadParameter(f"{why}.")
    return path


Page = Annotated[
    Path | None,
    typer.Option(
        "--html", metavar="FILE", callback=_writable, help="Also write a page with pictures."
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]
