"""Makes the prototypes of RAS: ``safecode-guard ras fit``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from safecode_guard.bench.options import Parser, new_file
from safecode_guard.bench.paired.items import file_exam, tiny_exam
from safecode_guard.bench.progress import counting
from safecode_guard.bench.ras.fit import LEAST, examples_of, fitted, moved, separation
from safecode_guard.bench.tables import number, show_table
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.risk.prototypes import Prototypes
from safecode_guard.tiny.load import weights_path

PROGRAM: Final = "safecode-guard ras fit"
PAIRS: Final = 50
COLUMNS: Final = ("turns a side", "s0", "95 % of draws", "width")
Record = dict[str, Any]


def run(options: argparse.Namespace) -> tuple[Prototypes, Record]:
    """Fit what the options name.

    Raises:
        GuardError: If the model or the data is not what it should be.
    """
    import torch

    torch.set_num_threads(1)
    folder = options.model or weights_path("chat")
    exam = (
        file_exam(options.data)
        if options.data
        else tiny_exam(options.pairs, scary=0, looks=0, split="validation", seed=options.seed)
    )
    with counting("Turns asked:") as advance:
        model = TransformersModel.load(str(folder), local_files_only=True)
        items = exam.of("safe", "unsafe", "scary")
        examples = examples_of(model, items, exam.is_refusal, on_done=advance)
    made = fitted(examples, engine_id=model.id, data=exam.name)
    record = {
        "prototypes": made.id,
        **asdict(made.fitted),
        **separation(examples, made),
        "fewer": [asdict(each) for each in moved(examples, seed=options.seed)],
    }
    return made, record


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = _parser().parse(arguments)
    made, record = run(options)
    made.write(options.out)
    if options.json:
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
        return 0
    numbers = made.fitted
    show_table(
        f"s0 = {numbers.s0:.3f}, k = {numbers.k:.2f}; how s0 moves with fewer turns",
        COLUMNS,
        [_cells(each) for each in record["fewer"]],
    )
    sys.stdout.write(_told(record) + _snippet(options.out))
    return 0


def _cells(moved: Record) -> list[str]:
    low, high = moved["low"], moved["high"]
    return [
        str(moved["a_side"]),
        number(moved["s0"], 3),
        f"{low:.3f} to {high:.3f}",
        number(high - low, 3),
    ]


def _told(record: Record) -> str:
    return (
        f"\nMean of {record['refused']} refusals, fitted on {record['examples']} turns "
        f"({record['data']}).\nOn these turns: {record['unsafe_above']:.1f} % of the unsafe and "
        f"{record['safe_above']:.1f} % of the safe ones lie above a certainty of 0.5;\n"
        f"of an unsafe and a safe turn the unsafe one is the riskier in {record['ranked']:.1f} %.\n"
    )


def _snippet(out: Path) -> str:
    """Return what a policy says to use the prototypes."""
    return f'\n[decoding]\nstrategy = "ras"\nprototypes = {json.dumps(str(out))}\n'


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Make the prototypes of refusal that strategy ras steers towards, and the "
        f"certainty that it steers by, from labelled turns: {LEAST} a side or more.",
    )
    add = parser.add_argument
    parser.add_labelled(PAIRS)
    add("--seed", type=int, default=1, help="of the choice of scenes and of the draws (1)")
    add("--out", type=new_file, metavar="FILE", required=True, help="write the prototypes here")
    add("--json", action="store_true", help="print one JSON object on stdout")
    return parser
