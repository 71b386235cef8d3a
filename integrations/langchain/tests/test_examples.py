"""Every example on agents runs, offline, as a script of its own, and says what it should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples" / "agents"
EXPECTED = {
    "household_robot": [
        "the stove is on",
        "everything has stopped",
        "turn_on (tool_call): safe, pass",
        "stop (tool_call): safe, pass",
        "take_photo (tool_result): unsafe, block",
        "a towel is lying on the stove",
    ],
    "screenshot_agent": ["100 pages, 201 verdicts, withheld: ['60-1']"],
    "review_resume": [
        "asked: turn_on {'target': 'stove', 'minutes': 30}",
        "the stove is on for 10 minutes",
        "decided: edit by ada | judged again: safe",
    ],
    "branching_graph": [
        "towel False, None: the stove is on",
        "towel True, reject: Not in this kitchen.",
        "towel True, approve: Not run: judged unsafe",
    ],
}


def test_every_example_is_listed() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} - {"kitchen"} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_runs(name: str) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SAFECODE_")}
    done = subprocess.run(
        [sys.executable, f"{name}.py"],
        cwd=EXAMPLES,
        env=kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for text in EXPECTED[name]:
        assert text in done.stdout, done.stdout


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60
