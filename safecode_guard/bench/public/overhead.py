"""What the harness itself takes: many items on a model that answers at once.

Run it with ``python -m safecode_guard.bench.public.overhead``. It makes a data set of MSSBench's
form, plays it, and prints the CPU time of each item and the memory's peak on the way.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image

from safecode_guard.bench.ledger import Ledger
from safecode_guard.bench.paired.asking import Asker
from safecode_guard.bench.paired.panel import Panelist
from safecode_guard.bench.paired.rows import rows_named
from safecode_guard.bench.public.playing import Player
from safecode_guard.bench.public.registry import open_data
from safecode_guard.bench.public.run import measure
from safecode_guard.bench.public.sets.mssbench import MSSBENCH
from safecode_guard.models.families import Family
from safecode_guard.models.protocol import (
    Abilities,
    Delta,
    Job,
    LabelScores,
    Question,
    Sampling,
    Tool,
)
from safecode_guard.testing.model import ByteVocabulary
from safecode_guard.turns.turn import Turn

PICTURES: Final = 64


class InstantSession:
    """Answers the same to everything."""

    def ask(self, questions: Sequence[Question]) -> list[LabelScores]:
        """Refuse: no judge asks this model."""
        raise NotImplementedError

    def answer(self, jobs: Sequence[Job]) -> Generator[Delta]:
        """Yield each answer in one piece."""
        for job in jobs:
            yield Delta(job.index, "Run along the track.", finish="stop", tokens=(1, 2, 3))

    def close(self) -> None:
        """Hold nothing."""


class InstantEngine:
    """A model that costs nothing."""

    id = "instant"
    family = Family(name="instant")
    vocabulary = ByteVocabulary()
    abilities = Abilities()

    def open(
        self, turns: Sequence[Turn], sampling: Sampling, *, tools: Sequence[Tool] = ()
    ) -> InstantSession:
        """Return a session."""
        return InstantSession()

    def batch_key(self, turn: Turn, sampling: Sampling, tools: Sequence[Tool]) -> str:
        """Let all turns share one."""
        return ""

    def working_size(self, image: Image.Image) -> tuple[int, int]:
        """Return the picture's own size."""
        return image.size


def make_data(folder: Path, pairs: int) -> None:
    """Write a data set of MSSBench's form, with few pictures and as many requests as pairs."""
    (folder / "chat").mkdir(parents=True)
    for number in range(PICTURES):
        Image.new("RGB", (64, 64), (number, 80, 40)).save(folder / f"chat/{number}.png")
    entries = [
        {
            "safe_image_path": f"{number % PICTURES}.png",
            "unsafe_image_path": f"{(number + 1) % PICTURES}.png",
            "Type": f"type {number % 5}",
            "queries": [f"How do I do number {number} here?"],
        }
        for number in range(pairs)
    ]
    text = json.dumps({"chat": entries, "embodied": []})
    (folder / "combined.json").write_text(text, encoding="utf-8")


def measure_overhead(folder: Path, items: int, *, rows: str) -> dict[str, Any]:
    """Play items and return milliseconds of CPU an item, and the peak of memory on the way.

    Args:
        folder: Where the data set and the ledger are made; empty.
        items: How many.
        rows: Under which rows, with the truth as the judge.
    """
    make_data(folder, items // 2)
    ledger, peaks, done = Ledger(folder / "run.jsonl"), dict[int, float](), 0

    def on_done(count: int) -> None:
        nonlocal done
        done += count
        fifth = 5 * done // items
        peaks.setdefault(fifth, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    asker = Asker(InstantEngine(), identity="instant", ledger=ledger)
    player = Player(asker, ledger, rows_named(rows), [Panelist("truth", None, "truth")])
    started = time.process_time()
    found = measure(open_data(MSSBENCH, folder), player, on_done=on_done)
    spent = time.process_time() - started
    return {
        "items": found.record["items"],
        "lines": len(player.lines),
        "ms_per_item": round(1000 * spent / items, 3),
        "ms_per_item_and_line": round(1000 * spent / items / len(player.lines), 3),
        "peak_mb_at_each_fifth": [round(peaks[fifth], 1) for fifth in sorted(peaks)],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    parser = argparse.ArgumentParser(description="What the harness of `bench run` itself takes.")
    parser.add_argument("--items", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--rows", default="plain", help="under which rows (plain)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure_overhead(Path(folder), options.items, rows=options.rows)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
