"""A public benchmark on the user's own model and directory, row by row and judge by judge.

Run it with ``safecode-guard bench run``. Every conversation goes through the real pipeline,
greedily; nothing is downloaded, and no data set is shipped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from safecode_guard.bench.ledger import Ledger
from safecode_guard.bench.options import (
    Parser,
    WrongOption,
    at_least,
    new_file,
    value_of,
)
from safecode_guard.bench.paired.asking import Asker
from safecode_guard.bench.paired.pace import PLAIN, Line
from safecode_guard.bench.paired.panel import (
    COMPOSED,
    NAMES,
    SAME,
    Panelist,
    panel,
    require_judges,
    weights_record,
)
from safecode_guard.bench.paired.rows import ROWS, rows_named
from safecode_guard.bench.progress import counting
from safecode_guard.bench.public import report
from safecode_guard.bench.public.costs import measure_costs
from safecode_guard.bench.public.failures import Failure, Failures
from safecode_guard.bench.public.graders import RUBRICS, Grader
from safecode_guard.bench.public.measures import (
    by_category,
    difference,
    figures,
    measures_of,
    ungraded,
    unread,
)
from safecode_guard.bench.public.playing import Outcome, Player, require_playable
from safecode_guard.bench.public.registry import BENCHMARKS, DataSet, benchmark_named, open_data
from safecode_guard.engines.presence import require_device
from safecode_guard.errors import GuardError
from safecode_guard.judges.guard_models import ChatWriter, EngineWriter, Writer
from safecode_guard.judges.names import address_of
from safecode_guard.tiny.load import weights_path

if TYPE_CHECKING:
    from safecode_guard.engines.transformers.model import TransformersModel

PROGRAM: Final = "safecode-guard bench run"
MAX_TOKENS: Final = 256
_REMOTE: Final = "openai:"


@dataclass(frozen=True)
class Found:
    """What a run found: its record, and what went wrong to be looked at."""

    record: dict[str, Any]
    failures: list[Failure]


def measure(
    data: DataSet,
    player: Player,
    *,
    timed_turns: int = 0,
    weights: Mapping[str, Mapping[str, str | int]] | None = None,
    on_done: Callable[[int], None] = lambda count: None,
) -> Found:
    """Have all conversations of a data set and tell what became of them.

    But for the costs, which a clock measures, equal data and models give an equal record.

    Args:
        data: What is asked.
        player: Under which rows and judges, and who grades.
        timed_turns: Turns on which each row is timed; 0: none.
        weights: What the record says of the weights.
        on_done: Told how many items were finished.

    Raises:
        GuardError: If a picture cannot be read, or a model or a judge cannot be asked.
    """
    require_playable(player, pictures=data.benchmark.pictures, turns=data.turns)
    outcomes: dict[Line, list[Outcome]] = {line: [] for line in player.lines}
    failures = Failures()
    for chunk in player.play(data.items()):
        for played in chunk:
            outcomes[played.line].append(played.outcome)
            failures.look(played)
        on_done(len(chunk) // len(outcomes))
    costs = measure_costs(player, data, turns=timed_turns)
    return Found(_record(data, player, outcomes, costs, weights or {}), failures.worst())


def _record(
    data: DataSet,
    player: Player,
    outcomes: Mapping[Line, Sequence[Outcome]],
    costs: Mapping[Line, Mapping[str, float]],
    weights: Mapping[str, Mapping[str, str | int]],
) -> dict[str, Any]:
    benchmark, grader = data.benchmark, player.grader
    rubrics = [rubric.version for rubric in player.rubrics] if grader else []
    return {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "items": data.count,
        "left_out": data.left_out,
        "doubled": data.doubled,
        "data": data.digest,
        "grader": {"id": grader.id, "rubrics": rubrics} if grader else None,
        "rows": [
            row
            for part in data.parts
            for row in _rows(data, player, outcomes, part, graded=grader is not None)
        ],
        "differences": [
            row
            for part in data.parts
            for row in _differences(data, outcomes, part, graded=grader is not None)
        ],
        "costs": [_named(line) | dict(cost) for line, cost in costs.items()],
        "weights": {name: dict(each) for name, each in weights.items()},
    }


def _rows(
    data: DataSet,
    player: Player,
    outcomes: Mapping[Line, Sequence[Outcome]],
    part: str,
    *,
    graded: bool,
) -> Iterator[dict[str, Any]]:
    measures = measures_of(data.benchmark, graded=graded)
    for line, all_of in outcomes.items():
        some = [outcome for outcome in all_of if outcome.part == part]
        told = figures(measures, some)
        first = next((measure for measure in measures if measure.name in told), None)
        yield _named(line) | {
            "part": part,
            "items": len(some),
            "note": player.lines[line][0].note,
            "metrics": told,
            "by": first.name if first else None,
            "categories": by_category(first, some) if first else {},
            "ungraded": ungraded(data.benchmark, some),
            "unread": unread(some),
            "tokens_per_item": round(sum(outcome.tokens for outcome in some) / len(some), 2),
        }


def _differences(
    data: DataSet, outcomes: Mapping[Line, Sequence[Outcome]], part: str, *, graded: bool
) -> Iterator[dict[str, Any]]:
    """Yield by how much each line differs from the plain model, metric by metric."""
    if PLAIN not in outcomes:
        return
    plain = [outcome for outcome in outcomes[PLAIN] if outcome.part == part]
    for line, all_of in outcomes.items():
        if line == PLAIN:
            continue
        some = [outcome for outcome in all_of if outcome.part == part]
        told = {
            measure.name: found
            for measure in measures_of(data.benchmark, graded=graded)
            if (found := difference(measure, some, plain)) is not None
        }
        yield _named(line) | {"part": part, "minus": " / ".join(PLAIN), "metrics": told}


def _named(line: Line) -> dict[str, Any]:
    return {"strategy": line[0], "judge": line[1]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = _parser().parse(arguments)
    if options.list:
        report.show_benchmarks(list(BENCHMARKS.values()))
        return 0
    if not options.benchmark:
        raise WrongOption("--benchmark names none.", hint=_USAGE)
    with value_of("--benchmark"):
        benchmark = benchmark_named(options.benchmark)
    if benchmark.needs_data and not options.data:
        raise WrongOption(f"--data says not where {benchmark.name} lies.", hint=benchmark.hint)
    found = run(options)
    if options.html:
        options.html.write_text(report.page(found.record, found.failures), encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(report.markdown(found.record), encoding="utf-8")
    if options.json:
        _write(options.json, json.dumps(found.record, ensure_ascii=False, indent=1) + "\n")
    if str(options.json) != "-":
        report.show(found.record)
    return 0


def run(options: argparse.Namespace) -> Found:
    """Load what the options name and measure it.

    Raises:
        GuardError: If data, a row, a judge, the model or a file is not what it should be.
    """
    with value_of("--rows"):
        rows = rows_named(options.rows, prototypes=options.prototypes)
    require_judges(options.judges, prototypes=options.prototypes)
    require_device(options.device)
    data, grader = _data(options), _grader(options.grader)
    with ExitStack() as stack:
        ledger = Ledger(options.resume or stack.enter_context(_no_record()))
        model, panelists, weights = _opened(options)
        player = Player(
            Asker(
                model,
                identity=str(weights[SAME]["sha256"]),
                ledger=ledger,
                max_tokens=options.max_tokens,
            ),
            ledger,
            rows,
            panelists,
            grader,
            [RUBRICS[name] for name in data.benchmark.rubrics],
        )
        advance = stack.enter_context(counting("Items done:", total=data.count))
        return measure(data, player, timed_turns=options.turns, weights=weights, on_done=advance)


def _data(options: argparse.Namespace) -> DataSet:
    """Return the data set that the options name; what is odd about it is told on stderr."""
    data = open_data(
        benchmark_named(options.benchmark),
        options.data or Path(),
        most=options.units,
        parts=options.parts.split(",") if options.parts else (),
        skip_missing=options.skip_missing,
    )
    for count, what in (
        (data.left_out, "lack a picture and are left out"),
        (data.doubled, "say and show what another one does; they are asked all the same"),
    ):
        if count:
            sys.stderr.write(f"{count} items {what}.\n")
    return data


@contextmanager
def _no_record() -> Iterator[Path]:
    """Keep the run's answers in a file of its own that goes with it, and not in memory."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, "run.jsonl")


def _opened(
    options: argparse.Namespace,
) -> tuple[TransformersModel, list[Panelist], dict[str, dict[str, str | int]]]:
    """Return what answers, what judges, and what is recorded of the weights."""
    import torch

    from safecode_guard.engines.transformers.model import TransformersModel

    folder = options.model or weights_path("chat")
    if options.model is None:
        torch.set_num_threads(1)  # so small a model only gets slower with more
    model = TransformersModel.load(str(folder), device=options.device, local_files_only=True)
    panelists = panel(options.judges, model, folder=folder, prototypes=options.prototypes)
    weights = weights_record({SAME: folder} | {p.name: p.folder for p in panelists if p.folder})
    return model, panelists, weights


def _grader(name: str | None) -> Grader | None:
    """Return the grader of a name: a model's directory, or where one is served.

    Raises:
        GuardError: If it is neither.
    """
    if name is None:
        return None
    writer: Writer
    if name.startswith(_REMOTE):
        url, model = address_of(name.removeprefix(_REMOTE))
        try:
            from langchain_openai import ChatOpenAI
        except ImportError as error:
            raise GuardError(
                "A grader behind a server needs langchain-openai.",
                hint="pip install 'safecode-guard[upstream]'",
            ) from error
        key: Any = os.environ.get("OPENAI_API_KEY") or "none"
        writer = ChatWriter(ChatOpenAI(base_url=url, model=model, api_key=key), id=model)
        return Grader(writer)
    if not Path(name).is_dir():
        raise GuardError(
            f"There is no grader {name!r}.",
            hint="Name a model's directory, or openai:http://host:8000/v1#model.",
        )
    from safecode_guard.engines.transformers.model import TransformersModel

    engine = TransformersModel.load(name, local_files_only=True)
    return Grader(EngineWriter(engine))


def _write(place: Path, text: str) -> None:
    if str(place) == "-":
        sys.stdout.write(text)
    else:
        place.write_text(text, encoding="utf-8")


_USAGE: Final = "--benchmark NAME --data DIR; --list tells the names and where each is to be had."


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="A public benchmark, on data that you have fetched yourself: what is refused "
        "and what is helped with, with and without a guard.",
    )
    add = parser.add_argument
    add("--benchmark", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    add("--data", type=Path, metavar="DIR", help="where its data set lies")
    add("--list", action="store_true", help="tell where each data set is to be had, and stop")
    add("--rows", default="plain,guarded", help=f"main, others, all, or of {', '.join(ROWS)}")
    add("--judges", default=SAME, help=f"of {', '.join((*NAMES, *COMPOSED))}, or directories")
    add("--grader", metavar="MODEL", help="a directory, or openai:http://host:8000/v1#model")
    add("--parts", metavar="NAMES", help="only these parts of the benchmark, by commas")
    add(
        "--units",
        type=at_least(1),
        metavar="N",
        help="only the first N pairs or entries of each part",
    )
    add("--skip-missing", action="store_true", help="leave out items that lack a picture")
    add("--turns", type=at_least(0), default=12, help="turns to time each row on; 0: none (12)")
    add("--max-tokens", type=at_least(1), default=MAX_TOKENS, help=f"longest answer ({MAX_TOKENS})")
    parser.add_model()
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (auto)")
    parser.add_prototypes()
    parser.add_resume()
    add("--json", type=new_file, metavar="FILE", help="write the record as JSON; - for stdout")
    add("--markdown", type=new_file, metavar="FILE", help="also write the tables as Markdown")
    add("--html", type=new_file, metavar="FILE", help="also write a page, failures first")
    return parser
