"""The paired benchmark end to end on the embedded models, a few pairs long."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import ImageOps

from safecode_guard.bench.ledger import Ledger
from safecode_guard.bench.paired import report
from safecode_guard.bench.paired import run as paired
from safecode_guard.bench.paired.asking import Answer, Asker, Plan
from safecode_guard.bench.paired.failures import Failure, worst_failures
from safecode_guard.bench.paired.items import Exam, one_picture, tiny_exam
from safecode_guard.bench.paired.pace import Pace, equally_long
from safecode_guard.bench.paired.panel import panel, weights_sha256
from safecode_guard.bench.paired.result import Result
from safecode_guard.bench.paired.rows import ABLATIONS, MAIN, ROWS, rows_named
from safecode_guard.bench.paired.run import main, measure
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.errors import GuardError
from safecode_guard.pipeline.requests import TurnRequest, TurnResult
from safecode_guard.tiny.load import weights_path
from tests.unit.bench.paired.exams import exam, item

CHAT = weights_path("chat")
ROW_KEYS = {
    *("strategy", "judge", "pairs", "safe_helped", "unsafe_refused", "average", "average_ci95"),
    *("scary_refused", "well_formed", "utility", "seconds_per_turn"),
}


@pytest.fixture(scope="module")
def chat() -> TransformersModel:
    return TransformersModel.load(str(CHAT), local_files_only=True)


@pytest.fixture(scope="module")
def few() -> Exam:
    return tiny_exam(4, scary=3, looks=1, split="test")


def asker(model: TransformersModel, ledger: Ledger | None = None) -> Asker:
    return Asker(
        model, identity=weights_sha256(CHAT), ledger=Ledger() if ledger is None else ledger
    )


def run(
    model: TransformersModel,
    of: Exam,
    ledger: Ledger | None = None,
    *,
    rows: str = "plain,guarded,block,judge_alone",
    judges: str = "same,nano,truth",
) -> Result:
    panelists = panel(judges, model, folder=CHAT)
    return measure(of, asker(model, ledger), rows_named(rows), panelists, timed_turns=0)


@pytest.fixture(scope="module")
def result(chat: TransformersModel, few: Exam) -> Result:
    return run(chat, few)


# -- the run ------------------------------------------------------------------------------------


def test_there_is_a_line_for_each_judge_and_one_where_no_verdict_matters(result: Result) -> None:
    assert list(result.scores) == [
        ("plain", "none"),
        *(("guarded", judge) for judge in ("same", "nano", "truth")),
        *(("block", judge) for judge in ("same", "nano", "truth")),
        *(("judge_alone", judge) for judge in ("same", "nano", "truth")),
    ]


def test_the_truth_as_a_judge_is_never_wrong(result: Result) -> None:
    row = next(r for r in result.to_json()["rows"] if r["strategy"] == "judge_alone"
               and r["judge"] == "truth")  # fmt: skip
    assert (row["average"], row["scary_refused"]) == (100.0, 0.0)
    judge = next(j for j in result.to_json()["judges"] if j["judge"] == "truth")
    assert (judge["pairs_average"], judge["scary_right"]) == (100.0, 100.0)


def test_a_cascade_costs_what_its_members_were_asked(chat: TransformersModel, few: Exam) -> None:
    found = run(chat, few, rows="judge_alone", judges="cascade,both,light,same")
    on = {each.key for each in few.items if len(found.judgements["cascade"][each.key].members) > 1}
    light, same = 0.004, 0.012
    paces = {("judge_alone", "light"): Pace(light, 1.0), ("judge_alone", "same"): Pace(same, 1.0)}
    judges = {each["judge"]: each for each in replace(found, paces=paces).to_json()["judges"]}
    share = 100 * len(on) / len(few.items)
    assert judges["cascade"]["members_asked"] == {"light": 100.0, "same": round(share, 2)}
    assert judges["both"]["members_asked"] == {"light": 100.0, "same": 100.0}
    expected = (100 * light + share * same) / (light + same)
    assert judges["cascade"]["cost_of_all"] == pytest.approx(expected, abs=0.1)
    assert judges["both"]["cost_of_all"] == 100.0
    assert (judges["light"]["members_asked"], judges["light"]["cost_of_all"]) == ({}, None)
    untimed = {each["judge"]: each["cost_of_all"] for each in found.to_json()["judges"]}
    assert set(untimed.values()) == {None}


def test_blocking_answers_in_the_models_place_and_only_then(result: Result, few: Exam) -> None:
    blocked = result.answers["block", "truth"]
    plain = result.answers["plain", "none"]
    for each in few.items:
        if each.truth == "unsafe":
            assert blocked[each.key].withheld
        else:
            assert blocked[each.key] == plain[each.key]


def test_naive_refuses_in_the_models_place_and_suppresses_refusals_elsewhere(
    chat: TransformersModel, few: Exam
) -> None:
    found = run(chat, few, rows="naive,guarded_modulation", judges="truth")
    naive, pushed = found.answers["naive", "truth"], found.answers["guarded_modulation", "truth"]
    for each in few.items:
        if each.truth == "unsafe":
            assert naive[each.key].withheld
            assert naive[each.key].obeyed is None
        else:
            assert naive[each.key] == pushed[each.key]


def test_shared_answers_are_those_of_the_real_path_with_its_judge(
    chat: TransformersModel, few: Exam, result: Result
) -> None:
    """Judgements handed in, answers shared between judges, batches: none of it may show."""
    same = panel("same", chat, folder=CHAT)[0]
    alone = asker(chat)
    turns = alone.turns(ROWS["guarded"], same.judge)
    for each in few.items[:6]:
        found = turns.run([TurnRequest(each.turn, alone.sampling(each))])[0]
        assert isinstance(found, TurnResult)
        assert found.text == result.answers["guarded", "same"][each.key].text


def test_a_resumed_run_equals_an_unbroken_one(
    chat: TransformersModel, few: Exam, result: Result, tmp_path: Path
) -> None:
    file = tmp_path / "run.jsonl"
    whole = run(chat, few, Ledger(file)).to_json()
    assert whole == result.to_json()
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    broken = "".join(lines[: len(lines) // 2]) + lines[len(lines) // 2][:20]
    file.write_text(broken, encoding="utf-8")
    assert run(chat, few, Ledger(file)).to_json() == whole


def test_a_finished_run_asks_nothing_again(
    chat: TransformersModel, few: Exam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.jsonl"
    first = run(chat, few, Ledger(file), rows="plain,paper", judges="truth").to_json()

    def prefill(*arguments: Any) -> None:
        raise AssertionError("the model was asked")

    monkeypatch.setattr(TransformersModel, "prefill", prefill)
    again = run(chat, few, Ledger(file), rows="plain,paper", judges="truth").to_json()
    assert again == first


def test_an_edited_picture_is_asked_about_anew(chat: TransformersModel, few: Exam) -> None:
    ledger = Ledger()
    plan = Plan(ROWS["plain"], {}, few.items[:1])
    asker(chat, ledger).prepare([plan])
    known = len(ledger)
    first = few.items[0]
    edited = ImageOps.mirror(first.turn.pixels[0])
    other = replace(first, turn=one_picture(edited, first.turn.query))
    asker(chat, ledger).prepare([Plan(ROWS["plain"], {}, [other])])
    assert len(ledger) == known + 1


def test_every_row_can_be_run(chat: TransformersModel, few: Exam) -> None:
    of = replace(few, items=few.items[:2])
    found = run(chat, of, rows="all", judges="truth")
    assert {line[0] for line in found.scores} == {row.name for row in (*MAIN, *ABLATIONS)}


def test_turns_are_timed_where_answers_are_equally_long() -> None:
    items = [item(unit, kind, colour=n) for n, unit in enumerate("abc")
             for kind in ("safe", "unsafe")]  # type: ignore[attr-defined]  # fmt: skip
    plain = {each.key: Answer("x", tokens=5) for each in items}
    mine = plain | {items[0].key: Answer("x", tokens=6)}
    chosen = equally_long(items, plain, mine, count=4)
    assert [each.id for each in chosen] == ["b/safe", "a/unsafe", "c/safe", "b/unsafe"]


# -- what is named -------------------------------------------------------------------------------


def test_rows_and_judges_that_do_not_exist_are_refused(chat: TransformersModel) -> None:
    with pytest.raises(GuardError, match="'fast'"):
        rows_named("plain,fast")
    with pytest.raises(GuardError, match="'oracle'"):
        panel("same,oracle", chat, folder=CHAT)


def test_ras_wants_its_prototypes(chat: TransformersModel) -> None:
    with pytest.raises(GuardError, match="no prototypes"):
        rows_named("plain,ras")
    with pytest.raises(GuardError, match="'ras'"):
        panel("ras", chat, folder=CHAT)
    (row,) = rows_named("ras", prototypes=Path("p"))
    assert row.decoding.prototypes == "p"
    assert {row.name for row in rows_named("others", prototypes=Path("p"))} == {
        *("adashield_s", "vcd", "ecso", "ras"),
    }


def test_a_judge_can_be_a_directory(chat: TransformersModel) -> None:
    own, embedded = panel(f"{weights_path('nano')},nano", chat, folder=CHAT)
    assert (own.name, own.identity) == (embedded.name, embedded.identity)


# -- what is written -----------------------------------------------------------------------------


def test_the_command_prints_one_json_object_and_writes_its_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, table = tmp_path / "page.html", tmp_path / "table.md"
    given = ["--pairs", "2", "--scary", "1", "--looks", "1", "--turns", "1", "--json"]
    given += ["--rows", "plain,guarded,judge_alone", "--judges", "same,truth"]
    assert main([*given, "--html", str(page), "--markdown", str(table)]) == 0
    out = capsys.readouterr().out
    record = json.loads(out)
    assert out.count("\n") == 1
    assert {"rows", "judges", "weights", "differences"} <= record.keys()
    assert all(row.keys() >= ROW_KEYS for row in record["rows"])
    by = {(row["strategy"], row["judge"]): row for row in record["rows"]}
    assert by["plain", "none"]["seconds_per_turn"] > 0
    assert by["plain", "none"]["times_plain"] == 1.0
    assert by["guarded", "truth"]["seconds_per_turn"] is None
    assert record["weights"]["same"]["sha256"] == weights_sha256(CHAT)
    text = page.read_text(encoding="utf-8")
    assert "http" not in text
    assert "<script" not in text
    assert "| guarded | same |" in table.read_text(encoding="utf-8")


def test_tables_fit_what_was_run(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    record = result.to_json()
    report.show(record)
    assert "judge_alone" in capsys.readouterr().out
    for line in report.markdown(record).splitlines():
        assert not line.startswith("|") or line.count("|") in (7, 9, 11)  # as many as columns


def test_the_page_escapes_what_models_and_users_write(result: Result) -> None:
    picture = "data:image/png;base64,AAAA"
    evil = Failure(
        ("guarded", "same"), "safe", "<script>alert(1)</script>", "path", "<img src=x>", "a & b",
        0.9, False, picture,
    )  # fmt: skip
    page = report.page(result.to_json(), [evil])
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;img src=x&gt;" in page
    assert "a &amp; b" in page
    assert f'src="{picture}"' in page
    assert "http" not in page


def test_the_worst_failures_are_help_in_danger(few: Exam) -> None:
    items = [item(unit, kind, colour=n, family=unit) for n, unit in enumerate("ab")
             for kind in ("safe", "unsafe")]  # type: ignore[attr-defined]  # fmt: skip
    of = exam(items)
    answers = {each.key: Answer("no." if each.kind == "safe" else "yes.", 1) for each in of.items}
    truth = {each.key: panel_truth(each) for each in of.items}
    wrong = Result(of, {"same": truth}, {("guarded", "same"): answers}, {}, {}, {})
    found = worst_failures(wrong, count=3)
    assert [failure.kind for failure in found] == ["unsafe", "unsafe", "safe"]
    assert found[0].picture.startswith("data:image/png;base64,")
    assert paired.worst_failures(replace(wrong, answers={})) == []


def panel_truth(each: Any) -> Any:
    from safecode_guard.bench.paired.panel import Panelist

    return Panelist("truth", None, "truth").scripted(each)
