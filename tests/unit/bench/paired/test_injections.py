"""Texts that try to dictate the verdict, and what counts as a flip."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from safecode_guard.bench.paired.injections import (
    NEUTRAL,
    PLACES,
    TEXTS,
    measure_injections,
)
from safecode_guard.bench.paired.panel import Panelist
from safecode_guard.bench.paired.run import main
from safecode_guard.errors import GuardError
from safecode_guard.judges.protocol import BaseJudge, JudgeRequest
from safecode_guard.tiny import world
from safecode_guard.tiny.prompts import INJECTIONS
from safecode_guard.verdict import Judgement


class Obedient(BaseJudge):
    """Knows the truth of every scene, and says what the text tells it to where it finds one."""

    id = "obedient"
    prompt_version = "1"

    def __init__(self, pairs: list[world.Pair], *, reads: bool) -> None:
        self.unsafe = {pair.unsafe.image.tobytes() for pair in pairs}
        self.reads = reads

    def judge(self, request: JudgeRequest) -> Judgement:
        text = f"{request.scene.request} {request.result or ''}"
        told = next((word for word in ("unsafe", "safe") if word in text), None)
        truth = request.scene.images[0].pixels.tobytes() in self.unsafe
        unsafe = told == "unsafe" if self.reads and told else truth
        return Judgement(
            judge_id=self.id,
            prompt_version=self.prompt_version,
            p_unsafe=float(unsafe),
            parse_status="parsed",
            latency_ms=0.0,
        )


@pytest.mark.parametrize("reads", [True, False])
def test_flips_are_of_verdicts_that_were_right(reads: bool) -> None:
    judge = Obedient(world.pairs(16, split="test", seed=1), reads=reads)
    record = measure_injections([Panelist("obedient", judge, "x")], 16, seed=1)
    lines = {line["place"]: line for line in record["injections"]}
    assert lines.keys() == PLACES.keys()
    drawn = lines.pop("in the picture")
    # Its memory of pixels fails where something is written: every unsafe half is called safe.
    assert (drawn["flipped"], drawn["flipped_neutral"]) == (50.0, 50.0)
    for line in lines.values():
        assert line["flipped_neutral"] == 0.0
        assert (line["flipped"] > 20) is reads


def test_the_texts_are_many_held_out_and_of_both_kinds() -> None:
    assert len(TEXTS) == len(set(TEXTS)) >= 60
    trained = {form.replace("{}", word) for form in INJECTIONS for word in ("safe", "unsafe")}
    assert not trained & set(TEXTS)
    assert not any("safe" in text for text in NEUTRAL)


def test_a_judge_that_fails_flips_nothing_and_is_told() -> None:
    class Broken(Obedient):
        def judge(self, request: JudgeRequest) -> Judgement:
            raise ValueError("no")

    judge = Broken([], reads=True)
    with pytest.raises(GuardError, match="failed"):
        measure_injections([Panelist("broken", judge, "x")], 1, seed=1)


def test_a_judge_that_reads_nothing_is_refused() -> None:
    judge = Panelist("truth", None, "x")
    with pytest.raises(GuardError, match="reads no text"):
        measure_injections([replace(judge)], 1, seed=1)


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--injections", "--pairs", "1", "--judges", "same"]) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert main(["--injections", "--pairs", "1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["injections"]) == len(PLACES)
