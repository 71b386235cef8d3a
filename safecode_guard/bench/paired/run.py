"""What guarding gives: the same request over a safe and an unsafe scene, strategy by strategy.

Run it with ``safecode-guard bench paired``. Every turn goes through the real pipeline, greedily;
judgements are made once per judge and handed in, and answers that cannot differ are shared. Times
are measured apart, on single turns with the judge included.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from safecode_guard.bench.ledger import Ledger
from safecode_guard.bench.options import (
    Parser,
    at_least,
    existing_file,
    new_file,
    value_of,
)
from safecode_guard.bench.paired import report
from safecode_guard.bench.paired.asking import MAX_TOKENS, Answer, Asker, Plan
from safecode_guard.bench.paired.dialogues import (
    dialogues_markdown,
    measure_dialogues,
    show_dialogues,
)
from safecode_guard.bench.paired.failures import worst_failures
from safecode_guard.bench.paired.injections import (
    injections_markdown,
    measure_injections,
    show_injections,
)
from safecode_guard.bench.paired.items import Exam, Item, file_exam, tiny_exam
from safecode_guard.bench.paired.pace import (
    PLAIN,
    Line,
    Lines,
    Pace,
    equally_long,
    lines_of,
    measure_pace,
)
from safecode_guard.bench.paired.panel import (
    COMPOSED,
    NAMES,
    RAS,
    SAME,
    Panelist,
    panel,
    require_judges,
    weights_record,
)
from safecode_guard.bench.paired.result import Result
from safecode_guard.bench.paired.rows import JUDGE_ALONE, ROWS, Row, rows_named
from safecode_guard.bench.paired.scores import score, score_judge
from safecode_guard.bench.paired.shifted import measure_shifts, shifts_markdown, show_shifts
from safecode_guard.bench.paired.shifts import SHIFTS, shifts_named
from safecode_guard.bench.progress import counting
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.tiny.load import weights_path

PROGRAM: Final = "safecode-guard bench paired"
TIMED_TURNS: Final = 24
SEED: Final = 1
"""Not 0: on those scenes the model card's figures were made, and earlier values were compared."""


def measure(
    exam: Exam,
    asker: Asker,
    rows: Sequence[Row],
    panelists: Sequence[Panelist],
    *,
    timed_turns: int = TIMED_TURNS,
    weights: Mapping[str, Mapping[str, str | int]] | None = None,
    on_call: Callable[[], None] = lambda: None,
) -> Result:
    """Answer all items of an exam under all rows and judges, and score the answers.

    Args:
        exam: What is asked.
        asker: The model with its ledger.
        rows: Strategies.
        panelists: Judges.
        timed_turns: Turns on which each row is timed; 0 for no timing.
        weights: What the result says of the weights.
        on_call: Told after each timed call.
    """
    judgements = {each.name: asker.judge(each, exam.items) for each in panelists}
    lines = lines_of(rows, panelists)
    plans = {
        line: Plan(row, judgements[line[1]] if row.judged else {}, exam.items)
        for line, (row, _) in lines.items()
        if row.name != JUDGE_ALONE
    }
    asker.prepare(list(plans.values()))
    answers = {line: asker.answers(plan) for line, plan in plans.items()}
    scores = {
        line: score(exam, answers[line])
        if line in answers
        else score_judge(exam, judgements[line[1]])
        for line in lines
    }
    paces: dict[Line, Pace] = {}
    if timed_turns and PLAIN in lines:
        turns = _timed(exam, answers, timed_turns)
        paces = measure_pace(asker, _costly(lines), turns, on_call=on_call)
    members = {each.name: each.members for each in panelists if each.members}
    return Result(exam, judgements, answers, scores, paces, weights or {}, members)


def _costly(lines: Lines) -> Lines:
    """Return the lines worth timing: scripted judges cost nothing, and views are no strategies."""
    return {
        line: (row, panelist)
        for line, (row, panelist) in lines.items()
        if not row.blind and (panelist is None or panelist.judge is not None)
    }


def _timed(exam: Exam, answers: Mapping[Line, Mapping[str, Answer]], count: int) -> Sequence[Item]:
    items = exam.of("safe", "unsafe")
    other = answers.get(("guarded", "same"), answers[PLAIN])
    return equally_long(items, answers[PLAIN], other, count=count)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = _parser().parse(arguments)
    if options.shift:
        return _shifts(options)
    if options.dialogues:
        return _dialogues(options)
    if options.injections:
        return _injections(options)
    result = run(options)
    record = result.to_json()
    if options.html:
        options.html.write_text(report.page(record, worst_failures(result)), encoding="utf-8")
    return _told(options, record, report.markdown, report.show)


def run(options: argparse.Namespace) -> Result:
    """Load what the options name and measure it.

    Raises:
        GuardError: If a row, a judge, the model or a file is not what it should be.
    """
    with value_of("--rows"):
        rows = rows_named(options.rows, prototypes=options.prototypes)
    exam = _exam(options)
    with counting("Turns done:") as advance:
        asker, panelists, weights = _opened(options, _judges(options, ",".join(NAMES)), advance)
        return measure(
            exam,
            asker,
            rows,
            panelists,
            timed_turns=options.turns,
            weights=weights,
            on_call=lambda: advance(1),
        )


def _shifts(options: argparse.Namespace) -> int:
    """Measure the shifts that the options name; return the exit code."""
    with value_of("--shift"):
        names = shifts_named(options.shift)
    exam = _exam(options)
    with counting("Turns done:") as advance:
        asker, panelists, weights = _opened(options, _judges(options, SAME), advance)
        record = measure_shifts(exam, asker, panelists, names) | {"weights": weights}
    return _told(options, record, shifts_markdown, show_shifts)


def _dialogues(options: argparse.Namespace) -> int:
    """Measure dialogues; return the exit code."""
    with counting("Turns done:") as advance:
        asker, panelists, weights = _opened(options, _judges(options, SAME), advance)
        record = measure_dialogues(asker, panelists, options.pairs, seed=options.seed)
        record |= {"weights": weights}
    return _told(options, record, dialogues_markdown, show_dialogues)


def _injections(options: argparse.Namespace) -> int:
    """Measure texts that try to dictate the verdict; return the exit code."""
    with counting("Verdicts:") as advance:
        _, panelists, weights = _opened(options, _judges(options, SAME), advance)
        record = measure_injections(panelists, options.pairs, seed=options.seed, on_call=advance)
    return _told(options, record | {"weights": weights}, injections_markdown, show_injections)


def _told(
    options: argparse.Namespace,
    record: dict[str, Any],
    markdown: Callable[[dict[str, Any]], str],
    show: Callable[[dict[str, Any]], None],
) -> int:
    """Write and print a record as the options say; return the exit code."""
    if options.markdown:
        options.markdown.write_text(markdown(record), encoding="utf-8")
    if options.json:
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    else:
        show(record)
    return 0


def _judges(options: argparse.Namespace, otherwise: str) -> str:
    return otherwise if options.judges is None else str(options.judges)


def _exam(options: argparse.Namespace) -> Exam:
    if options.data:
        return file_exam(options.data)
    return tiny_exam(
        options.pairs, scary=options.scary, looks=options.looks, split="test", seed=options.seed
    )


def _opened(
    options: argparse.Namespace, judges: str, advance: Callable[[int], None]
) -> tuple[Asker, list[Panelist], dict[str, dict[str, str | int]]]:
    """Return what answers, what judges, and what is recorded of the weights."""
    import torch

    require_judges(judges, prototypes=options.prototypes)
    torch.set_num_threads(1)  # figures of one thread compare, and so small a model wants no more
    folder = options.model or weights_path("chat")
    model = TransformersModel.load(str(folder), local_files_only=True)
    panelists = panel(judges, model, folder=folder, prototypes=options.prototypes)
    weights = weights_record({SAME: folder} | {p.name: p.folder for p in panelists if p.folder})
    asker = Asker(
        model,
        identity=str(weights[SAME]["sha256"]),
        ledger=Ledger(options.resume),
        max_tokens=options.max_tokens,
        on_done=advance,
    )
    return asker, panelists, weights


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="The same request over a safe and an unsafe scene: what is helped with, and "
        "what is refused, with and without a guard.",
    )
    add = parser.add_argument
    add("--pairs", type=at_least(1), default=400, help="pairs of held-out scenes (400)")
    add(
        "--scary",
        type=at_least(0),
        default=200,
        help="harmless requests that sound dangerous (200)",
    )
    add(
        "--looks",
        type=at_least(0),
        default=60,
        help="pairs that plain questions are asked about (60)",
    )
    add("--rows", default="main", help=f"main, ablations, others, all, or of {', '.join(ROWS)}")
    add(
        "--judges",
        help=f"of {', '.join((*NAMES, *COMPOSED, RAS))}, or model directories; endings _each and "
        "_together say how several pictures are judged (all six; with --shift, --dialogues and "
        "--injections same)",
    )
    add(
        "--shift",
        metavar="NAMES",
        help=f"the pairs under ordinary changes: all, or of {', '.join(SHIFTS)}",
    )
    add("--dialogues", action="store_true", help="dialogues of three turns about the pairs' scenes")
    add("--injections", action="store_true", help="text that tries to dictate the verdict")
    add("--seed", type=int, default=SEED, help="of the choice of held-out scenes (1)")
    add(
        "--turns",
        type=at_least(0),
        default=TIMED_TURNS,
        help="turns to time each row on; 0: none (24)",
    )
    add("--max-tokens", type=at_least(1), default=MAX_TOKENS, help="longest answer (64)")
    parser.add_model()
    add("--data", type=existing_file, metavar="FILE", help="pairs of your own, JSON Lines")
    parser.add_prototypes()
    parser.add_resume()
    add("--json", action="store_true", help="print one JSON object on stdout")
    add("--markdown", type=new_file, metavar="FILE", help="also write the tables as Markdown")
    add("--html", type=new_file, metavar="FILE", help="also write a page with bars and pictures")
    return parser
