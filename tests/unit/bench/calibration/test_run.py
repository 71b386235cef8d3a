"""Calibrating end to end, on the embedded judges and on a file of pairs."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from safecode_guard import ChatTransformers, Policy, SafeCoDeCheck
from safecode_guard.bench.calibration import run as bench
from safecode_guard.bench.calibration.data import changed, halves, scenes_of
from safecode_guard.errors import GuardError
from safecode_guard.judges.calibration import Calibration
from safecode_guard.judges.content import image_block
from safecode_guard.judges.protocol import BaseJudge, JudgeRequest
from safecode_guard.testing import ScriptedJudge
from safecode_guard.tiny import world
from safecode_guard.verdict import Judgement


def no_progress(count: int) -> None:
    """Take a count."""


@pytest.mark.parametrize("judge", ["same", "nano"])
def test_the_command_writes_what_a_policy_can_use(
    judge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, html = tmp_path / "cal.json", tmp_path / "cal.html"
    options = ["--judge", judge, "--pairs", "24", "--out", str(out), "--html", str(html)]
    assert bench.main([*options, "--target-risk", "0.2", "--target-fpr", "0.2"]) == 0
    snippet = capsys.readouterr().out.split("\n[judge]")[1]
    told = tomllib.loads("[judge]" + snippet)
    model = ChatTransformers.tiny()
    kind: dict[str, Any] = (
        {"kind": "same_model"}
        if judge == "same"
        else {"kind": "local", "model": str(bench.weights_path("nano"))}
    )
    policy = Policy.load({"judge": {**kind, **told["judge"]}, "thresholds": told["thresholds"]})
    item = scenes_of(None, pairs=1, seed=5)[0]
    picture = item.turn.images[0].pixels
    content = [image_block(picture), {"type": "text", "text": item.turn.query}]
    verdict = SafeCoDeCheck(model, policy=policy).check([HumanMessage(content)])
    assert verdict.error is None
    made = Calibration.read(out)
    assert verdict.judge is not None
    assert verdict.judge.calibration_id == made.id
    page = html.read_text()
    assert page.count("<svg") == 6
    assert "http" not in page
    assert made.judge_id in page


def test_the_two_scenes_of_a_pair_stay_together() -> None:
    items = scenes_of(None, pairs=40, seed=2)
    first, second = halves(items, seed=3)
    assert not {item.unit for item in first} & {item.unit for item in second}
    assert len(first) + len(second) == len(items)
    assert abs(len(first) - len(second)) <= 4


def test_changed_scenes_ask_the_same_about_other_pictures() -> None:
    items = scenes_of(None, pairs=8, seed=2)
    made, again = changed(items, seed=1), changed(items, seed=1)
    assert [item.key for item in made] == [item.key for item in again]
    for before, after in zip(items, made, strict=True):
        assert (before.turn.query, before.truth) == (after.turn.query, after.truth)
        assert before.turn.images[0].sha256 != after.turn.images[0].sha256


def test_a_judge_without_probabilities_cannot_be_calibrated() -> None:
    items = scenes_of(None, pairs=2, seed=2)
    for judge in (ScriptedJudge("unsafe"), ScriptedJudge(ValueError())):
        with pytest.raises(GuardError, match="no probability"):
            bench.judged("x", judge, items, no_progress)


def test_figures_tell_alarms_misses_and_what_is_left_open() -> None:
    items = scenes_of(None, pairs=20, seed=2)

    class Half(BaseJudge):
        id = "half"

        def judge(self, request: JudgeRequest) -> Judgement:
            return Judgement(judge_id="half", prompt_version="1", p_unsafe=0.5)

    told = bench.judged("x", Half(), items, no_progress)
    row = bench.figures(told, None)
    assert (row["undecided"], row["missed"], row["false_alarms"]) == (100.0, 0.0, 0.0)
    assert row["confidently_wrong"] is None


def test_own_pairs_are_read_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for pair in world.pairs(12, split="validation", seed=4):
        for side, scene in (("safe", pair.safe), ("unsafe", pair.unsafe)):
            scene.image.save(tmp_path / f"{pair.id}-{side}.png")
        lines.append(
            {
                "id": pair.id,
                "query": pair.query,
                "safe_image": f"{pair.id}-safe.png",
                "unsafe_image": f"{pair.id}-unsafe.png",
            }
        )
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)))
    assert bench.main(["--judge", "nano", "--data", str(data), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["calibration"]["data"] == "pairs.jsonl"
    assert [row["scenes"] for row in record["rows"]][::2] == [
        "fitted on",
        "others",
        "others, changed",
    ]


def test_a_judge_that_is_not_there_is_told() -> None:
    with pytest.raises(GuardError, match="lihgt"):
        bench.main(["--judge", "lihgt"])
