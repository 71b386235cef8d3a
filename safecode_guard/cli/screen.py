"""What is shown on the terminal: answers, verdicts and errors, in 80 columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from safecode_guard.errors import GuardError, ImageError
from safecode_guard.taxonomy import Action
from safecode_guard.verdict import DecodingRecord, JudgeRecord, Verdict

out: Final = Console(highlight=False)
err: Final = Console(highlight=False, stderr=True)

STYLES: Final[dict[Action, str]] = {
    "pass": "green",
    "guide": "cyan",
    "review": "yellow",
    "block": "red",
}


def printable(text: str) -> str:
    """Return a text that cannot steer the terminal: control characters become visible."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner on stderr meanwhile; whatever is printed meanwhile goes there as well."""
    with redirect_stdout(err.file), err.status(what):
        yield


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    out.file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_error(error: GuardError) -> None:
    """Print an error's message and its hint on stderr."""
    print_problem(error.what if isinstance(error, ImageError) else error.message, error.hint)


def print_problem(message: str, hint: str | None) -> None:
    """Print what is wrong on one line of stderr, and what to do about it on another."""
    for title, style, text in (("Error", "bold red", message), ("Hint", "bold", hint)):
        if text:
            line = printable(" ".join(text.split()))
            err.print(Text.assemble((f"{title}: ", style), line), soft_wrap=True)


def side_by_side(columns: Mapping[str, tuple[str, float | None]]) -> Table:
    """Return a table of texts, each under its title and over the seconds it took."""
    table = Table(expand=True, show_footer=True)
    for title, (_, seconds) in columns.items():
        footer = "" if seconds is None else f"{seconds:.2f} s"
        table.add_column(title, ratio=1, footer=Text(footer, "dim"), overflow="fold")
    table.add_row(*(Text(printable(text)) for text, _ in columns.values()))
    return table


def verdict_line(verdict: Verdict | None) -> Text:
    """Return a verdict in a few words: label, probability, action."""
    if verdict is None:
        return Text("not judged", "dim")
    sure = "" if verdict.p_unsafe is None else f" (p {verdict.p_unsafe:.2f})"
    label = verdict.label or "no label"
    return Text.assemble(f"{label}{sure}: ", (verdict.action, STYLES[verdict.action]))


def verdict_table(verdict: Verdict) -> Table:
    """Return all that a verdict says, one line each, without what is not there."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("verdict", verdict_line(verdict))
    for name, text in _details(verdict).items():
        if text:
            table.add_row(name, Text(printable(text)))
    return table


def _details(verdict: Verdict) -> dict[str, str | None]:
    skipped = (f"{media.kind}: {media.reason}" for media in verdict.media_skipped)
    return {
        "stage": verdict.stage if verdict.stage != "input" else None,
        "tool": verdict.tool_call.name if verdict.tool_call else None,
        "pictures": _pictures(verdict),
        "hazards": ", ".join(verdict.categories),
        "caption": verdict.caption,
        "rationale": verdict.rationale,
        "degraded": "the check failed or was incomplete" if verdict.degraded else None,
        "error": verdict.error,
        "not judged": "; ".join(skipped),
        "judge": _judge(verdict.judge) if verdict.judge else None,
        "steering": _steering(verdict.decoding) if verdict.decoding else None,
        "obeyed": _obeyed(verdict),
        "policy": f"{verdict.policy.name}, {verdict.policy.digest[:12]}",
    }


def _pictures(verdict: Verdict) -> str | None:
    """Return which of several pictures decided, and how many were left out."""
    shown, decided = len(verdict.images), verdict.decided_by or ()
    said = [f"{shown}, decided by {', '.join(str(i + 1) for i in decided)}"] if shown > 1 else []
    said += [f"{len(verdict.left_out)} left out"] if verdict.left_out else []
    return "; ".join(said) or None


def _judge(judge: JudgeRecord) -> str:
    form = f", by {judge.reply_form}" if judge.reply_form else ""
    return f"{judge.id}{form}, {'cached' if judge.cached else f'{judge.latency_ms:.0f} ms'}"


def _obeyed(verdict: Verdict) -> str | None:
    """Return whether the steered answer did as it should, and what followed if it did not."""
    if not verdict.closed:
        return None
    said = {True: "yes", False: "no", None: "not told"}[verdict.obeyed]
    return f"{said}, followed by {verdict.followed_by}" if verdict.followed_by else said


def _steering(decoding: DecodingRecord) -> str:
    used = {**decoding.parameters, "steps": decoding.steps, "seed": decoding.seed}
    said = (
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in used.items()
        if isinstance(value, str | int | float)
    )
    return ", ".join([decoding.strategy, *said])
