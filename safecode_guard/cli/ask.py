"""``safecode-guard ask`` and ``check``: pictures, and one question."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from safecode_guard.cli import screen
from safecode_guard.cli.exits import EXIT_OF
from safecode_guard.cli.opening import (
    animations,
    messages_of,
    named,
    open_model,
    open_policy,
    require_picture,
    tool_call_of,
)
from safecode_guard.cli.options import (
    Answer,
    AsJson,
    Device,
    Judge,
    Model,
    Pictures,
    PolicyFile,
    Preset,
    Question,
    ToolCall,
)
from safecode_guard.errors import TurnBlocked
from safecode_guard.taxonomy import Stage
from safecode_guard.verdict import Verdict, gravest

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage


def ask(
    images: Pictures,
    question: Question,
    model: Model = None,
    judge: Judge = None,
    policy: PolicyFile = None,
    preset: Preset = None,
    device: Device = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Longest answer.")
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Also show what steering did to each token.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask the plain and the guarded model the same question about some pictures."""
    for image in images:
        require_picture(image)
    rules = open_policy(policy, preset=preset, judge=judge)
    messages = messages_of(images, question)
    chat = open_model(model, device=device, max_tokens=max_tokens)
    from safecode_guard.runnables.guard import SafeCoDeGuard

    guard = SafeCoDeGuard(model=chat, policy=rules)
    with screen.working("Asking the plain model ..."), named(images):
        plain = timed_answer(chat, messages)
    with screen.working("Asking the guarded model ..."), named(images):
        guarded = timed_answer(guard, messages, safecode_trace=trace)
    if as_json:
        screen.print_json(
            {
                "question": question,
                "plain": {"text": plain.text, "seconds": plain.seconds},
                "guarded": {"text": guarded.text, "seconds": guarded.seconds},
                "verdicts": [verdict.to_json() for verdict in guarded.verdicts],
                "trace": guarded.trace,
            }
        )
    else:
        _show(question, plain, guarded)
        if guarded.verdict is not None:
            _show_animations(images, guarded.verdict)
    raise typer.Exit(guarded.exit_code)


def check(
    images: Pictures,
    question: Question,
    answer: Answer = None,
    tool_call: ToolCall = None,
    model: Model = None,
    judge: Judge = None,
    policy: PolicyFile = None,
    preset: Preset = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Judge pictures and a question, or what follows from them; nothing is answered."""
    rules = open_policy(policy, preset=preset, judge=judge)
    messages = messages_of(images, question)
    call = None if tool_call is None else tool_call_of(tool_call)
    stage: Stage | None = None if answer is None else "output"
    chat = open_model(model, device=device)
    from safecode_guard.runnables.guard import SafeCoDeGuard

    with screen.working("Judging ..."):
        guard = SafeCoDeGuard(model=chat, policy=rules)
        verdict = guard.check(messages, stage=stage, tool_call=call, answer=answer)
    if as_json:
        screen.print_json(verdict.to_json())
    else:
        screen.out.print(screen.verdict_table(verdict))
        _show_animations(images, verdict)
    raise typer.Exit(EXIT_OF[verdict.action])


class TimedAnswer:
    """An answer, its verdicts, and the seconds it took."""

    def __init__(
        self, reply: AIMessage | None, verdicts: tuple[Verdict, ...], seconds: float
    ) -> None:
        self.text = reply.text if reply is not None else "(blocked; nothing was answered)"
        self.trace: list[dict[str, Any]] = (
            reply.response_metadata.get("safecode_trace", []) if reply is not None else []
        )
        self.verdicts = verdicts
        self.seconds = round(seconds, 4)

    @property
    def verdict(self) -> Verdict | None:
        """The most severe verdict."""
        return gravest(self.verdicts)

    @property
    def exit_code(self) -> int:
        """What the command exits with."""
        return EXIT_OF[self.verdict.action] if self.verdict is not None else 0


def timed_answer(model: BaseChatModel, messages: list[BaseMessage], **options: Any) -> TimedAnswer:
    """Ask a model and take the time; a turn blocked by an exception is an answer, too."""
    start = time.perf_counter()
    try:
        reply = model.invoke(messages, **options)
    except TurnBlocked as blocked:
        return TimedAnswer(None, (blocked.verdict,), time.perf_counter() - start)
    return TimedAnswer(reply, Verdict.all_from_message(reply), time.perf_counter() - start)


def _show(question: str, plain: TimedAnswer, guarded: TimedAnswer) -> None:
    screen.out.print(Text.assemble(("Question: ", "bold"), screen.printable(question)))
    columns = {"Plain": (plain.text, plain.seconds), "Guarded": (guarded.text, guarded.seconds)}
    screen.out.print(screen.side_by_side(columns))
    for verdict in guarded.verdicts:
        screen.out.print(screen.verdict_table(verdict))
    if guarded.trace:
        screen.out.print(_trace_table(guarded.trace))


def _show_animations(images: list[Path], verdict: Verdict) -> None:
    for line in animations(images, verdict):
        screen.out.print(screen.printable(line), markup=False)


TRACED = {
    "clean": "picture",
    "second": "second view",
    "contrasted": "contrast",
    "steered": "steered",
}


def _trace_table(trace: list[dict[str, Any]]) -> Table:
    """Return the guided steps: the three likeliest tokens at each stage, and the one chosen."""
    table = Table(title="Guided steps", title_justify="left", expand=True, show_lines=True)
    table.add_column("#")
    for title in (*TRACED.values(), "chosen"):
        table.add_column(title, ratio=1, overflow="fold")
    for step in trace:
        stages = ("\n".join(map(_token, step[stage][:3])) for stage in TRACED)
        chosen = screen.printable(step["chosen_text"]).strip()
        table.add_row(str(step["step"]), *map(Text, stages), Text(chosen))
    return table


def _token(score: dict[str, Any]) -> str:
    return f"{score['p']:.2f} {screen.printable(score['text']).strip()}"
