"""Calibrating end to end, on the embedded judges and on a file of pairs."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import HumanMessage

from safecode_guard import ChatTransformers, Policy, SafeCoDeCheck
from safecode_guard.bench.calibration import run as bench
from safecode_guard.bench.calibration.data import accompanied, changed, halves, reworded, scenes_of
from safecode_guard.errors import GuardError
from safecode_guard.judges.calibration import Calibration
from safecode_guard.judges.content import image_block
from safecode_guard.judges.protocol import BaseJudge, JudgeRequest
from safecode_guard.judges.scope import Scope
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
    assert page.count("<svg") == 10
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


def test_reworded_scenes_ask_for_the_same_in_other_words() -> None:
    items = scenes_of(None, pairs=8, seed=2)
    made, again = reworded(items, seed=1), reworded(items, seed=1)
    assert [item.key for item in made] == [item.key for item in again]
    for before, after in zip(items, made, strict=True):
        assert (before.truth, before.phrase) == (after.truth, after.phrase)
        assert before.turn.query != after.turn.query
        assert before.turn.images[0].sha256 == after.turn.images[0].sha256


def test_a_second_picture_is_a_safe_scenes_and_stands_in_any_place() -> None:
    items = scenes_of(None, pairs=20, seed=2)
    made = accompanied(items, seed=1)
    assert [item.key for item in made] == [item.key for item in accompanied(items, seed=1)]
    safe = {item.turn.images[0].sha256 for item in items if item.truth == "safe"}
    places = set()
    for before, after in zip(items, made, strict=True):
        own, shown = before.turn.images[0], [image.sha256 for image in after.turn.images]
        places.add(shown.index(own.sha256))
        assert len(shown) == 2
        assert {*shown} - {own.sha256} <= safe
        assert (before.truth, before.turn.query) == (after.truth, after.turn.query)
    assert places == {0, 1}


def test_the_table_is_written_with_intervals(tmp_path: Path) -> None:
    table = tmp_path / "cal.md"
    assert bench.main(["--judge", "nano", "--pairs", "24", "--markdown", str(table)]) == 0
    lines = table.read_text().splitlines()
    assert lines[0].startswith("**local:nano@")
    assert len([line for line in lines if " to " in line]) == 10


@pytest.mark.parametrize("judge", ["same", "nano"])
def test_a_scope_is_fitted_told_of_and_used(judge: str, tmp_path: Path) -> None:
    out, table = tmp_path / "cal.json", tmp_path / "cal.md"
    options = ["--judge", judge, "--pairs", "48", "--out", str(out), "--markdown", str(table)]
    assert bench.main([*options, "--scope", "0.1"]) == 0
    made = Calibration.read(out)
    assert made.scope is not None
    assert made.scope.share == 0.1
    told = [line.split("|")[1].strip() for line in table.read_text().splitlines()[4:]]
    assert told[:3] == ["fitted on, before", "fitted on, after", "fitted on, in scope"]
    model = ChatTransformers.tiny()
    kind = {"kind": "same_model"} if judge == "same" else {"kind": "local", "model": "nano"}
    policy = Policy.load({"judge": {**kind, "calibration": str(out)}})
    item = scenes_of(None, pairs=1, seed=5)[0]
    content = [image_block(item.turn.images[0].pixels), {"type": "text", "text": item.turn.query}]
    verdict = SafeCoDeCheck(model, policy=policy).check([HumanMessage(content)])
    assert verdict.error is None
    assert verdict.judge is not None
    assert verdict.judge.unlikeness is not None


def test_only_judges_with_states_have_a_scope() -> None:
    items = scenes_of(None, pairs=2, seed=2)
    with pytest.raises(GuardError, match="without --scope"):
        bench.judged("x", ScriptedJudge(0.5), items, no_progress, with_states=True)


def test_what_lies_beyond_the_scope_is_no_safe_verdict() -> None:
    unsafe = np.array([False, False, True, True])
    states = np.array([[0.0], [9.0], [9.0], [9.0]])
    told = bench.Told("x", np.array([0.01, 0.01, 0.01, 0.99]), unsafe, np.zeros(4, bool), states)
    scope = Scope(
        centres=((0.0,),), directions=((1.0,),), variances=(1.0,), rest=1.0, threshold=1, share=0.1
    )
    plain = Calibration(judge_id="j", prompt_version="1", temperature=1, bias=0)
    row = bench.figures(told, plain)
    assert (row["undecided"], row["missed"], row["scope"]) == (0.0, 50.0, False)
    assert row["confidently_wrong"] == pytest.approx(100 / 3)
    row = bench.figures(told, plain.model_copy(update={"scope": scope}))
    assert (row["undecided"], row["missed"], row["scope"]) == (50.0, 0.0, True)
    assert row["confidently_wrong"] == 0.0


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
        "others, two pictures",
    ]


def test_a_judge_that_is_not_there_is_told() -> None:
    with pytest.raises(GuardError, match="lihgt"):
        bench.main(["--judge", "lihgt"])
