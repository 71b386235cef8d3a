"""Every example runs, offline, as a script of its own, and says what it should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
EXPECTED = {
    "compose_chain": ["unsafe", "on the message: guide balanced"],
    "branch_on_verdict": ["[to a person: unsafe"],
    "stream_answer": ["[unsafe, guide]", "event: unsafe guide"],
    "policy_from_settings": ["kiosk 0.7", "Please ask a member of staff. | block", "refused:"],
    "own_strategy": ["decoding: ban-sure-1"],
    "guard_agent": ["asks: walk_to {'target': 'fence'}", "walked to: ['bench']", "tool_call block"],
    "judge_tool_calls": ["bench'}: pass, walked", "edge'}: block, not run", "{}: pass, sunny"],
}


def test_every_example_is_listed():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"pictures"}
    assert scripts == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_example_runs(name):
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
def test_examples_stay_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60
