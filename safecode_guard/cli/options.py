"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Picture = Annotated[
    Path,
    typer.Argument(
        metavar="IMAGE", exists=True, dir_okay=False, readable=True, help="A picture file."
    ),
]


def _asked(question: str) -> str:
    if not question.strip():
        raise typer.BadParameter("nothing is asked.")
    return question


Question = Annotated[
    str, typer.Argument(metavar="QUESTION", callback=_asked, help="What is asked about it.")
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
Preset = Annotated[
    str | None,
    typer.Option("--preset", metavar="NAME", help="balanced, strict or permissive."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]
