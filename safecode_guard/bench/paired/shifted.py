"""What is left of guarding when pictures and wordings change: one line for each shift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from safecode_guard.bench.intervals import Values, interval
from safecode_guard.bench.paired.asking import Asker, Judgements, Plan
from safecode_guard.bench.paired.items import Exam
from safecode_guard.bench.paired.panel import Panelist
from safecode_guard.bench.paired.rows import ROWS
from safecode_guard.bench.paired.scores import (
    Scores,
    bounds,
    mean,
    score,
    score_judge,
    with_intervals,
)
from safecode_guard.bench.paired.shifts import shifted
from safecode_guard.bench.tables import Cells, between, markdown_table, number, show_table

ROWS_TOLD: Final = ("plain", "guarded", "retry", "naive")
EFFECT_COLUMNS: Final = (
    *("shift", "judge", "plain", "guarded", "retry", "naive"),
    *("guarded - naive", "95 %", "retry - naive", "95 %"),
)
CAUSE_COLUMNS: Final = (
    *("shift", "judge", "recall", "false alarms", "obeyed", "obeyed with retry"),
    *("unsafe refused", "refused with retry", "refused naively"),
    *("helped rightly", "helped with retry", "helped naively", "wrong reason"),
)
Record = Mapping[str, Any]


def measure_shifts(
    exam: Exam, asker: Asker, panelists: Sequence[Panelist], names: Sequence[str]
) -> dict[str, Any]:
    """Answer the pairs of an exam as they are and under each shift, and return the figures.

    Args:
        exam: What is asked; its pairs alone count.
        asker: The model with its ledger.
        panelists: Judges.
        names: Shifts.
    """
    pairs = Exam(exam.name, tuple(exam.of("safe", "unsafe")), exam.is_refusal, exam.is_whole)
    exams = {"none": pairs} | {name: shifted(pairs, name) for name in names}
    shifts = [
        _record(name, panelist, of, asker) for name, of in exams.items() for panelist in panelists
    ]
    return {"exam": exam.name, "pairs": len(exam.of("safe")), "shifts": shifts}


def show_shifts(record: Record) -> None:
    """Print the figures as tables on stdout."""
    for title, columns, rows in _tables(record):
        show_table(title, columns, rows, keys=2)


def shifts_markdown(record: Record) -> str:
    """Return the figures as Markdown tables."""
    return "\n\n".join(markdown_table(*table) for table in _tables(record)) + "\n"


def _record(name: str, panelist: Panelist, exam: Exam, asker: Asker) -> dict[str, Any]:
    judgements = asker.judge(panelist, exam.items)
    scores = dict(_scores(exam, asker, judgements))
    judge = score_judge(exam, judgements)
    return {
        "shift": name,
        "judge": panelist.name,
        "recall": mean(judge.refused),
        "false_alarms": mean(100 - judge.helped),
        "rows": {row: _figures(found) for row, found in scores.items()},
        "guarded_minus_naive": _difference(scores["guarded"], scores["naive"]),
        "retry_minus_naive": _difference(scores["retry"], scores["naive"]),
    }


def _scores(exam: Exam, asker: Asker, judgements: Judgements) -> Iterator[tuple[str, Scores]]:
    plans = {name: Plan(ROWS[name], judgements, exam.items) for name in ROWS_TOLD}
    asker.prepare(list(plans.values()))
    for name, plan in plans.items():
        yield name, score(exam, asker.answers(plan))


def _figures(scores: Scores) -> dict[str, Any]:
    measures: dict[str, Values] = {
        "average": scores.average,
        "safe_helped": scores.helped,
        "unsafe_refused": scores.refused,
        "helped_rightly": scores.rightly,
        "well_formed": scores.whole,
        "obeyed": scores.obeyed,
        "followed": scores.followed,
        "wrong_reason": scores.misgiven,
    }
    return with_intervals(measures)


def _difference(mine: Scores, other: Scores) -> dict[str, Any]:
    values = mine.average - other.average
    return {"points": mean(values), "ci95": bounds(interval(values))}


def _tables(record: Record) -> Iterator[tuple[str, Sequence[str], list[Cells]]]:
    lines = record["shifts"]
    title = f"Averages under shifts, {record['pairs']} pairs: {record['exam']}"
    yield title, EFFECT_COLUMNS, [_effect_cells(line) for line in lines]
    yield "What they come from", CAUSE_COLUMNS, [_cause_cells(line) for line in lines]


def _effect_cells(line: Record) -> Cells:
    averages = (number(line["rows"][name]["average"]) for name in ROWS_TOLD)
    cells = [line["shift"], line["judge"], *averages]
    for name in ("guarded_minus_naive", "retry_minus_naive"):
        found = line[name]
        cells += [f"{found['points']:+.1f}", between(found["ci95"])]
    return cells


def _cause_cells(line: Record) -> Cells:
    rows = [line["rows"][name] for name in ("guarded", "retry", "naive")]
    figures = (
        *(line["recall"], line["false_alarms"], *(row["obeyed"] for row in rows[:2])),
        *(row["unsafe_refused"] for row in rows),
        *(row["helped_rightly"] for row in rows),
        rows[0]["wrong_reason"],
    )
    return [line["shift"], line["judge"], *map(number, figures)]
