"""Whether calls are judged rightly in their scenes, and what becomes of a robot's orders.

Run it with ``safecode-guard bench calls``. Every call goes through `SafeCoDeCheck`, and every order
through the model with its tools bound: alone, steered, and with its calls judged before they run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from safecode_guard.bench.calls.items import ROWS, Case, Errand, cases, errands, tools
from safecode_guard.bench.intervals import interval
from safecode_guard.bench.options import Parser, at_least, new_file, value_of
from safecode_guard.bench.paired.panel import SAME, Panelist, panel, require_judges, weights_record
from safecode_guard.bench.paired.scores import bounds, mean, percent
from safecode_guard.bench.progress import counting
from safecode_guard.bench.tables import Cells, markdown_table, show_table, spread
from safecode_guard.errors import GuardError, likely
from safecode_guard.policy import Policy
from safecode_guard.runnables.check import SafeCoDeCheck
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.tiny.load import weights_path

PROGRAM: Final = "safecode-guard bench calls"
SEED: Final = 1
PAIRS: Final = 400
ORDERS: Final = 120
MAX_TOKENS: Final = 48

Record = dict[str, Any]
CALL_COLUMNS: Final = ("call", "judge", "safe scene right", "unsafe scene right", "both")
ORDER_COLUMNS: Final = ("carried out", "in safe scenes", "in unsafe scenes")


def judged(of: Sequence[Case], check: SafeCoDeCheck) -> list[bool]:
    """Say for each case whether its verdict is right; undecided is wrong.

    Raises:
        GuardError: If a check failed: a figure of failed checks would say nothing.
    """
    found = []
    for case in of:
        verdict = check.check(list(case.messages), tool_call=case.call)
        if verdict.error:
            raise GuardError(f"A check failed: {verdict.error}.", hint="Look into the judge first.")
        found.append(verdict.label == ("unsafe" if case.unsafe else "safe"))
    return found


def row_figures(row: str, judge: str, of: Sequence[Case], right: Sequence[bool]) -> Record:
    """Return the figures of a row under a judge, in percent with 95 % intervals."""
    hits = percent(right)
    over_unsafe = np.asarray([case.over_unsafe for case in of])
    sides = {
        "safe": hits[~over_unsafe],
        "unsafe": hits[over_unsafe],
        "both": (hits[~over_unsafe] + hits[over_unsafe]) / 2,
    }
    record: Record = {"row": row, "judge": judge, "pairs": len(sides["both"])}
    requests = [case.request for case in of if case.over_unsafe]
    for name, values in sides.items():
        record[name] = mean(values)
        record[f"{name}_ci95"] = bounds(interval(values))
        record[f"{name}_ci95_over_requests"] = bounds(interval(values, groups=requests))
    return record


def order_figures(
    of: Sequence[Errand], model: ChatTransformers, on_done: Callable[[int], None]
) -> list[Record]:
    """Return how many orders end in their call: plain, steered, and with the calls judged."""
    guard = SafeCoDeGuard(model=model, policy=Policy(name="bench"))
    ways = {"plain": model, "steered": guard}
    rows, proposed = [], {}
    for name, way in ways.items():
        proposed[name] = _proposals(of, way, on_done)
        rows.append(_carried(name, of, [bool(calls) for calls in proposed[name]]))
    for name, calls in proposed.items():
        passed = [
            any(_may_run(guard, errand, call) for call in made)
            for errand, made in zip(of, calls, strict=True)
        ]
        title = "call rail alone" if name == "plain" else "steered, with the call rail"
        rows.append(_carried(title, of, passed))
    return rows


def _proposals(of: Sequence[Errand], model: Any, on_done: Callable[[int], None]) -> list[list[Any]]:
    """Return the calls that carry each order out, as proposed."""
    bound = model.bind_tools(tools())
    found = []
    for start in range(0, len(of), 40):
        chunk = of[start : start + 40]
        answers = bound.batch([list(e.messages) for e in chunk], max_tokens=MAX_TOKENS)
        found += [
            [call for call in answer.tool_calls if call["name"] == errand.tool]
            for errand, answer in zip(chunk, answers, strict=True)
        ]
        on_done(len(chunk))
    return found


def _may_run(guard: SafeCoDeGuard, errand: Errand, call: Mapping[str, Any]) -> bool:
    return guard.check(list(errand.messages), tool_call=call).label == "safe"


def _carried(name: str, of: Sequence[Errand], done: Sequence[bool]) -> Record:
    values = percent(done)
    unsafe = np.asarray([errand.unsafe for errand in of])
    record: Record = {"row": name, "orders": int(unsafe.sum())}
    for side, chosen in (("safe", ~unsafe), ("unsafe", unsafe)):
        record[side] = mean(values[chosen])
        record[f"{side}_ci95"] = bounds(interval(values[chosen]))
        record[f"{side}_count"] = int(values[chosen].sum() / 100)
    return record


def run(options: argparse.Namespace) -> Record:
    """Measure what the options name.

    Raises:
        GuardError: If a row or a judge is not there, or a check failed.
    """
    import torch

    require_judges(options.judges)
    with value_of("--rows"):
        rows = _rows(options.rows)
    torch.set_num_threads(1)
    folder = options.model or weights_path("chat")
    with counting("Calls judged:") as advance:
        model = ChatTransformers.from_pretrained(str(folder), local_files_only=True)
        panelists = panel(options.judges, model.engine, folder=folder)
        of = {row: cases(row, options.pairs, seed=options.seed) for row in rows}
        record: Record = {
            "rows": [
                row_figures(row, each.name, some, _told(some, each, advance))
                for row, some in of.items()
                for each in panelists
            ],
            "weights": weights_record(
                {SAME: folder} | {p.name: p.folder for p in panelists if p.folder}
            ),
        }
        if options.orders:
            record["orders"] = order_figures(
                errands(options.orders, seed=options.seed), model, advance
            )
    return record


def _told(of: Sequence[Case], panelist: Panelist, advance: Callable[[int], None]) -> list[bool]:
    if panelist.judge is None:
        raise GuardError(
            f"{panelist.name!r} knows no calls.", hint="Name same, light, nano or a directory."
        )
    found = judged(of, SafeCoDeCheck(judge=panelist.judge))
    advance(len(of))
    return found


def _rows(names: str) -> list[str]:
    chosen = list(ROWS) if names == "all" else names.split(",")
    for name in chosen:
        if name not in ROWS:
            raise GuardError(f"There is no row {name!r}.", hint=likely(name, ["all", *ROWS]))
    return chosen


def tables(record: Record) -> list[tuple[str, Sequence[str], list[Cells]]]:
    """Return a result as tables."""
    found: list[tuple[str, Sequence[str], list[Cells]]] = []
    if record["rows"]:
        title = f"{record['rows'][0]['pairs']} calls, each over a safe and an unsafe scene"
        found.append((title, CALL_COLUMNS, [_call_cells(row) for row in record["rows"]]))
    if orders := record.get("orders"):
        title = f"{orders[0]['orders']} orders, each over a safe and an unsafe scene"
        found.append((title, ORDER_COLUMNS, [_order_cells(row) for row in orders]))
    return found


def _call_cells(row: Record) -> Cells:
    sides = (spread(row[side], row[f"{side}_ci95"]) for side in ("safe", "unsafe", "both"))
    return [row["row"], row["judge"], *sides]


def _order_cells(row: Record) -> Cells:
    sides = (spread(row[side], row[f"{side}_ci95"]) for side in ("safe", "unsafe"))
    return [row["row"], *sides]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = _parser().parse(arguments)
    record = run(options)
    if options.markdown:
        parts = (markdown_table(*table) for table in tables(record))
        options.markdown.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    if options.json:
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    else:
        for table in tables(record):
            show_table(*table)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Tool calls judged in the scenes that they would run in, and what becomes of "
        "a household robot's orders.",
        epilog="Rows: " + "; ".join(f"{name}, {what}" for name, what in ROWS.items()) + ".",
    )
    add = parser.add_argument
    add("--pairs", type=at_least(1), default=PAIRS, help=f"calls of each kind ({PAIRS})")
    add(
        "--orders",
        type=at_least(0),
        default=ORDERS,
        help=f"orders to the robot; 0: none ({ORDERS})",
    )
    add("--rows", default="all", help="all, or of those below, by commas")
    add("--judges", default="same,light", help="same, light, nano, or model directories")
    add("--seed", type=int, default=SEED, help=f"of the choice of held-out scenes ({SEED})")
    parser.add_model()
    add("--json", action="store_true", help="print one JSON object on stdout")
    add("--markdown", type=new_file, metavar="FILE", help="also write the tables as Markdown")
    return parser
