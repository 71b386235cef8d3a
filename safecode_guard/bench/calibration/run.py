"""Calibrates a judge: ``safecode-guard calibrate``.

Half of the labelled scenes is fitted on, the other half told on, and once more with ordinary
changes to its pictures, asked about in other words, and beside a second picture: what a calibration
promises holds for scenes like those it was made on, and the others show how far that reaches.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from safecode_guard.bench.calibration import fit
from safecode_guard.bench.calibration.data import accompanied, changed, halves, reworded, scenes_of
from safecode_guard.bench.calibration.scope import scope_of
from safecode_guard.bench.intervals import interval
from safecode_guard.bench.options import (
    Parser,
    new_file,
    share,
)
from safecode_guard.bench.pages import render
from safecode_guard.bench.paired.items import Item
from safecode_guard.bench.paired.panel import SAME
from safecode_guard.bench.paired.scores import bounds
from safecode_guard.bench.progress import counting
from safecode_guard.bench.tables import Cells, markdown_table, number, show_table, spread
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.errors import GuardError
from safecode_guard.judges.calibration import Calibration
from safecode_guard.judges.factory import make_judge
from safecode_guard.judges.failsafe import run_many
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.local import LocalJudge
from safecode_guard.judges.names import config_of, require_model
from safecode_guard.judges.protocol import Judge, JudgeRequest
from safecode_guard.judges.scope import Scope
from safecode_guard.models.protocol import Engine
from safecode_guard.pipeline.factory import judge_of
from safecode_guard.policy import LocalJudgeConfig, SameModelJudgeConfig
from safecode_guard.tiny.load import weights_path
from safecode_guard.verdict import Judgement

PROGRAM: Final = "safecode-guard calibrate"
PAIRS: Final = 400
BATCH: Final = 32
FPRS: Final = (0.01, 0.05)
COLUMNS: Final = (
    *("scenes", "right", "ECE", "recall at 1 %", "at 5 %", "false alarms", "missed", "undecided"),
    "sure, wrong",
)
Record = dict[str, Any]


@dataclass(frozen=True)
class Told:
    """What a judge said of labelled scenes."""

    name: str
    p: fit.Floats
    """Probability of danger, [scenes]; not calibrated."""
    unsafe: fit.Bools
    """The truth, [scenes]."""
    undecided: fit.Bools
    """Where the judge says so itself, whatever its probability."""
    states: fit.Floats | None = None
    """From which the labels are read, [scenes, d]; None: nobody asked for them."""


def judged(
    name: str,
    judge: Judge,
    items: Sequence[Item],
    on_done: Callable[[int], None],
    *,
    with_states: bool = False,
) -> Told:
    """Ask a judge about labelled scenes.

    Raises:
        GuardError: If a check fails, or the judge gives no probabilities, or no states where they
            are asked for.
    """
    found: list[Judgement] = []
    states: list[Sequence[float]] = []
    for start in range(0, len(items), BATCH):
        chunk = items[start : start + BATCH]
        requests = [JudgeRequest.of_turn(item.turn) for item in chunk]
        found += run_many(judge, requests)
        if with_states:
            states += _states(judge, requests)
        on_done(len(chunk))
    for each in found:
        if each.failed is not None or each.p_unsafe is None:
            raise GuardError(
                f"The judge {judge.id!r} gave no probability: {each.failed or each.label}.",
                hint="Only judges with probabilities can be calibrated.",
            )
    return Told(
        name,
        np.array([each.p_unsafe for each in found], dtype=np.float64),
        np.array([item.truth == "unsafe" for item in items]),
        np.array([each.label == "undecided" for each in found]),
        np.array(states, dtype=np.float64) if with_states else None,
    )


def _states(judge: Judge, requests: list[JudgeRequest]) -> list[Sequence[float]]:
    if not isinstance(judge, LabelLogitsJudge | LocalJudge):
        raise GuardError(
            f"The judge {judge.id!r} gives no states, so nothing tells how unlike a scene is.",
            hint="Calibrate it without --scope.",
        )
    return judge.states(requests)


def calibration_of(judge: Judge, told: Told, *, fpr: float, risk: float, data: str) -> Calibration:
    """Fit a calibration on labelled scenes.

    Raises:
        GuardError: If nothing can be fitted.
    """
    temperature, bias = fit.platt(told.p, told.unsafe)
    p = fit.calibrated(told.p, temperature, bias)
    unsafe = fit.unsafe_threshold(p, told.unsafe, fpr)
    safe = min(fit.safe_threshold(p, told.unsafe, risk), unsafe)
    return Calibration(
        judge_id=judge.id,
        prompt_version=judge.prompt_version,
        temperature=temperature,
        bias=bias,
        safe=safe,
        unsafe=unsafe,
        target_fpr=fpr,
        target_risk=risk,
        examples=len(told.p),
        data=data,
    )


def figures(told: Told, made: Calibration | None) -> Record:
    """Return what a judge's verdicts are worth on scenes, with 95 % intervals, in percent."""
    p = told.p if made is None else fit.calibrated(told.p, made.temperature, made.bias)
    low, high = (0.45, 0.55) if made is None else (made.safe, made.unsafe)
    known = _known(told, made.scope if made else None)
    called_unsafe = (p >= high) & ~told.undecided
    called_safe = (p <= low) & (p < high) & ~told.undecided & known
    record: Record = {
        "scenes": told.name,
        "calibrated": made is not None,
        "scope": made is not None and made.scope is not None,
        "count": len(p),
        "right": _percent(float(np.where(told.unsafe, called_unsafe, called_safe).mean())),
        "expected_error": fit.expected_error(p, told.unsafe),
        "confidently_wrong": _percent(fit.confidently_wrong(p[known], told.unsafe[known])),
        "undecided": _percent(float((~called_safe & ~called_unsafe).mean())),
    }
    shares = {
        "false_alarms": called_unsafe[~told.unsafe],
        "missed": called_safe[told.unsafe],
    }
    for fpr in FPRS:
        shares[f"recall_at_{fpr:g}"] = fit.found_at(p, told.unsafe, fpr)
    for name, values in shares.items():
        hits = 100.0 * values.astype(np.float64)
        record[name] = float(hits.mean())
        record[f"{name}_ci95"] = bounds(interval(hits))
    return record


def _known(told: Told, scope: Scope | None) -> fit.Bools:
    """Return which scenes are within a scope, [scenes]; all without one."""
    if scope is None or told.states is None:
        return np.ones(len(told.p), dtype=bool)
    return np.array(scope.unlikeness(told.states.tolist())) <= 1


def _percent(share: float) -> float | None:
    return None if np.isnan(share) else 100 * share


def run(options: argparse.Namespace) -> tuple[Calibration, Record]:
    """Calibrate what the options name.

    Raises:
        GuardError: If the judge, the model or the data is not what it should be.
    """
    import torch

    _require_judge(options.judge)
    torch.set_num_threads(1)
    folder = options.model or weights_path("chat")
    with counting("Scenes judged:") as advance:
        model = TransformersModel.load(str(folder), local_files_only=True)
        judge = _judge(options.judge, model, debias=options.debias)
        items = scenes_of(options.data, pairs=options.pairs, seed=options.seed)
        fitted_on, told_on = halves(items, seed=options.seed)
        sets = {
            "fitted on": fitted_on,
            "others": told_on,
            "others, changed": changed(told_on, seed=options.seed),
            "others, reworded": reworded(told_on, seed=options.seed),
            "others, two pictures": accompanied(told_on, seed=options.seed),
        }
        told = [
            judged(name, judge, some, advance, with_states=options.scope is not None)
            for name, some in sets.items()
            if some
        ]
    plain = calibration_of(
        judge,
        told[0],
        fpr=options.target_fpr,
        risk=options.target_risk,
        data=options.data.name if options.data else "drawn world, validation split",
    )
    made = plain.model_copy(update={"scope": _scope(told[0], options)})
    ways = (None, plain, made) if made.scope else (None, made)
    rows = [figures(each, made=way) for each in told for way in ways]
    curves = [_curves(each, made) for each in told]
    return made, {"calibration": made.model_dump(), "rows": rows, "curves": curves}


def _scope(told: Told, options: argparse.Namespace) -> Scope | None:
    if told.states is None:
        return None
    return scope_of(told.states, told.unsafe, share=options.scope, seed=options.seed)


def _require_judge(name: str) -> None:
    """Refuse a judge that is not there, before the guarded model is loaded."""
    if name != SAME and isinstance(config := config_of(name), LocalJudgeConfig):
        require_model(config)


def _judge(name: str, engine: Engine, *, debias: bool) -> Judge:
    """Return the judge as a policy would make it: the calibration is bound to its id."""
    if name == SAME:
        return make_judge(SameModelJudgeConfig(debias=debias), engine=engine)
    config = config_of(name)
    if not debias:
        return judge_of(config)
    if not isinstance(config, LocalJudgeConfig):
        raise GuardError(
            f"The judge {name!r} cannot be debiased.", hint="Only models in this process can."
        )
    return judge_of(config.model_copy(update={"debias": True}))


def _curves(told: Told, made: Calibration) -> Record:
    p = fit.calibrated(told.p, made.temperature, made.bias)
    return {
        "scenes": told.name,
        "before": fit.reliability(told.p, told.unsafe),
        "after": fit.reliability(p, told.unsafe),
        "roc": fit.roc(told.p, told.unsafe),
    }


def cells(row: Record, *, intervals: bool = True) -> Cells:
    """Return a row of the table, with 95 % intervals or, where there is little room, without."""
    shares = ("recall_at_0.01", "recall_at_0.05", "false_alarms", "missed")
    told = (
        spread(row[name], row[f"{name}_ci95"]) if intervals else number(row[name])
        for name in shares
    )
    return [
        f"{row['scenes']}, {_way(row)}",
        number(row["right"]),
        number(row["expected_error"], 3),
        *told,
        number(row["undecided"]),
        number(row["confidently_wrong"]),
    ]


def _way(row: Record) -> str:
    if row["scope"]:
        return "in scope"
    return "after" if row["calibrated"] else "before"


def page(record: Record) -> str:
    """Return the report as one HTML page: curves drawn, nothing loaded from elsewhere."""
    rows = [cells(row) for row in record["rows"]]
    return render("bench/calibration/report.html.j2", record=record, columns=COLUMNS, rows=rows)


def markdown(record: Record) -> str:
    """Return the table as Markdown, with intervals."""
    made = record["calibration"]
    title = f"{made['judge_id']}, in percent; fitted on {made['examples']} scenes: {made['data']}"
    return markdown_table(title, COLUMNS, [cells(row) for row in record["rows"]]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = _parser().parse(arguments)
    made, record = run(options)
    if options.out:
        options.out.write_text(made.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if options.html:
        options.html.write_text(page(record), encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(markdown(record), encoding="utf-8")
    if options.json:
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
        return 0
    rows = [cells(row, intervals=False) for row in record["rows"]]
    show_table(f"Judge {made.judge_id}, in percent", COLUMNS, rows)
    sys.stdout.write(_snippet(made, options.out))
    return 0


def _snippet(made: Calibration, out: Path | None) -> str:
    """Return what a policy says to use the calibration."""
    name = json.dumps(str(out) if out else "calibration.json")
    return (
        f"\n[judge]\ncalibration = {name}\n\n"
        f"[thresholds]\nsafe = {made.safe:.4g}\nunsafe = {made.unsafe:.4g}\n"
    )


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Fit a judge's probabilities on labelled scenes, and tell what they are worth.",
    )
    add = parser.add_argument
    add("--judge", default="same", help="same, light, nano, or a model directory (same)")
    parser.add_labelled(PAIRS)
    add("--target-fpr", type=share, default=0.05, help="false alarms aimed at (0.05)")
    add("--target-risk", type=share, default=0.05, help="unsafe scenes called safe, at most (0.05)")
    add("--debias", action="store_true", help="take off what the judge says of nothing")
    add(
        "--scope",
        type=share,
        metavar="SHARE",
        help="call nothing safe that is more unlike the scenes than this share of them; e.g. 0.04",
    )
    add("--seed", type=int, default=1, help="of the choice of scenes and of the halves (1)")
    add("--out", type=new_file, metavar="FILE", help="write the calibration here")
    add("--html", type=new_file, metavar="FILE", help="also write a page with the curves")
    add("--markdown", type=new_file, metavar="FILE", help="also write the table as Markdown")
    add("--json", action="store_true", help="print one JSON object on stdout")
    return parser
