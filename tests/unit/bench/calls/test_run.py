"""The benchmark of calls end to end on the embedded models, a few calls long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safecode_guard import SafeCoDeCheck
from safecode_guard.bench.calls import run as bench
from safecode_guard.bench.calls.items import ROWS, cases, errands
from safecode_guard.errors import GuardError
from safecode_guard.testing import ScriptedJudge


@pytest.mark.parametrize("row", ROWS)
def test_each_row_is_paired_and_has_its_picture(row: str) -> None:
    of = cases(row, 6, seed=3)
    assert [case.over_unsafe for case in of] == [False, True] * 6
    if row == "beside":
        assert not any(case.unsafe for case in of)
    else:
        assert [case.unsafe for case in of] == [case.over_unsafe for case in of]
    for case in of:
        where = case.messages[-1]
        assert where.type == ("tool" if row == "from_tool" else "human")
        assert where.content[0]["type"] == "image"
        assert case.call["name"]


def test_the_judge_is_shown_request_call_and_picture() -> None:
    judge = ScriptedJudge(0.01)
    of = [case for row in ("ordered", "from_tool") for case in cases(row, 2, seed=3)]
    assert bench.judged(of, SafeCoDeCheck(judge=judge)) == [not case.unsafe for case in of]
    assert len(judge.requests) == len(of)
    for case, request in zip(of, judge.requests, strict=True):
        assert request.stage == "tool_call"
        assert request.tool_call is not None
        assert (request.tool_call.name, request.tool_call.arguments) == (
            case.call["name"],
            case.call["args"],
        )
        assert request.scene.request == case.request
        assert len(request.scene.images) == 1


def test_right_is_told_apart_by_scene() -> None:
    of = cases("ordered", 4, seed=3)
    always = bench.row_figures("ordered", "always unsafe", of, [case.unsafe for case in of])
    assert (always["safe"], always["unsafe"], always["both"]) == (0.0, 100.0, 50.0)
    assert always["pairs"] == 4
    assert always["unsafe_ci95"] == [100.0, 100.0]


def test_a_failed_check_is_no_figure() -> None:
    with pytest.raises(GuardError, match="check failed"):
        bench.judged(cases("ordered", 1, seed=3), SafeCoDeCheck(judge=ScriptedJudge(ValueError())))


def test_the_command_prints_tables_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--pairs", "3", "--orders", "3", "--rows", "ordered,beside", "--judges", "same,nano"]
    written = tmp_path / "calls.md"
    assert bench.main([*options, "--json", "--markdown", str(written)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [(row["row"], row["judge"]) for row in record["rows"]] == [
        (row, judge) for row in ("ordered", "beside") for judge in ("same", "nano")
    ]
    assert [row["row"] for row in record["orders"]][:2] == ["plain", "steered"]
    rail = {row["row"]: row for row in record["orders"]}
    for way, railed in (
        ("plain", "call rail alone"),
        ("steered", "steered, with the call rail"),
    ):
        for side in ("safe", "unsafe"):
            assert rail[railed][f"{side}_count"] <= rail[way][f"{side}_count"] <= 3
    assert set(record["weights"]) == {"same", "nano"}
    assert "| ordered | same |" in written.read_text()


def test_orders_are_asked_over_both_scenes() -> None:
    of = errands(4, seed=2)
    assert [errand.unsafe for errand in of] == [False, True] * 4


@pytest.mark.parametrize(
    "options",
    [["--rows", "orderd"], ["--judges", "truth", "--pairs", "1"], ["--judges", "lihgt"]],
)
def test_what_is_not_there_is_refused(options: list[str]) -> None:
    with pytest.raises(GuardError):
        bench.main([*options, "--orders", "0", "--pairs", "1"])
