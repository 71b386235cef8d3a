"""The harness from a data set to its table: resumed, repeated, graded, told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from safecode_guard.bench.ledger import Ledger
from safecode_guard.bench.paired.asking import Asker
from safecode_guard.bench.paired.panel import Panelist
from safecode_guard.bench.paired.rows import rows_named
from safecode_guard.bench.public import report
from safecode_guard.bench.public.detectors import DETECTORS
from safecode_guard.bench.public.failures import Failure
from safecode_guard.bench.public.graders import RUBRICS, Grader
from safecode_guard.bench.public.playing import Player
from safecode_guard.bench.public.questions import Question
from safecode_guard.bench.public.registry import benchmark_named, open_data
from safecode_guard.bench.public.run import Found, main, measure
from safecode_guard.errors import DataError, GuardError
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.testing import ScriptedVLM
from safecode_guard.turns.turn import Turn
from tests.unit.bench.public.datasets import MADE, picture

HELP, REFUSE = "Run.", "I can't help."


class ScriptedWriter:
    """A grader's model that answers by script, and counts what it is asked."""

    id = "scripted-grader"

    def __init__(self, replies: Any) -> None:
        self.replies = replies
        self.asked: list[str] = []

    def write(self, turns: Sequence[Turn], **options: Any) -> list[str]:
        self.asked += [turn.query for turn in turns]
        return [self.replies(turn.query) for turn in turns]


def by_refusal(asked: str) -> str:
    return "Because. <grade>0</grade>" if REFUSE in asked else "Because. <grade>2</grade>"


def runner() -> ScriptedVLM:
    """A model that helps of itself, and would refuse nearly as soon; it finds red dangerous."""
    return ScriptedVLM(
        {HELP: 0.4, REFUSE: 0.0},
        p_unsafe=lambda scene: 0.99 if scene.images[0].getpixel((0, 0))[0] in (50, 140) else 0.01,
    )


def player(
    model: ScriptedVLM,
    *,
    rows: str = "plain,guarded,block",
    ledger: Ledger | None = None,
    grader: Grader | None = None,
    rubrics: Sequence[str] = (),
    judge: str = "same",
) -> Player:
    ledger = Ledger() if ledger is None else ledger
    asker = Asker(model, identity="scripted", ledger=ledger, max_tokens=48)
    own = LabelLogitsJudge(model, id="same:scripted")
    panelist = (
        Panelist("same", own, "scripted") if judge == "same" else Panelist(judge, None, judge)
    )
    named = [RUBRICS[name] for name in rubrics]
    return Player(asker, ledger, rows_named(rows), [panelist], grader, named)


def run(name: str, root: Path, *, timed: int = 0, **options: Any) -> Found:
    MADE[name](root)
    benchmark = benchmark_named(name)
    graded = options.get("grader") is not None
    made = player(runner(), rubrics=benchmark.rubrics if graded else (), **options)
    return measure(open_data(benchmark, root), made, timed_turns=timed)


def row_of(record: dict[str, Any], strategy: str, part: str = "") -> dict[str, Any]:
    return next(r for r in record["rows"] if (r["strategy"], r["part"]) == (strategy, part))


def value(row: dict[str, Any], metric: str) -> float:
    found: float = row["metrics"][metric]["value"]
    return found


# -- figures --------------------------------------------------------------------------------------


def test_figures_are_those_of_the_answers(tmp_path: Path) -> None:
    record = run("mssbench", tmp_path).record
    plain, block = row_of(record, "plain", "chat"), row_of(record, "block", "chat")
    # the plain model helps everywhere; the judge is right about every picture
    assert value(plain, "right.lexicon") == 50.0
    assert value(block, "right.lexicon") == 100.0
    assert value(block, "refused_unsafe.lexicon") == 100.0
    assert value(block, "refused_safe.lexicon") == 0.0
    assert block["metrics"]["right.lexicon"]["units"] == 3
    assert block["categories"] == {"physical": 100.0}
    of_block = next(
        r for r in record["differences"] if (r["strategy"], r["part"]) == ("block", "chat")
    )
    assert of_block["metrics"]["right.lexicon"] == {
        "points": 50.0, "ci95": [50.0, 50.0], "units": 3,
    }  # fmt: skip


def test_the_guard_is_steered_by_the_judge(tmp_path: Path) -> None:
    record = run("mssbench", tmp_path).record
    assert value(row_of(record, "guarded", "chat"), "right.lexicon") == 100.0


def test_the_truth_judges_each_side_of_a_shared_scene(tmp_path: Path) -> None:
    """The turns of type B that follow the first are the same on both sides, picture included."""
    record = run("mtmcs", tmp_path, rows="plain,block", judge="truth").record
    for split in ("type_a", "type_b"):
        row = row_of(record, "block", f"{split}/multimodal")
        assert value(row, "refused_unsafe.lexicon") == 100.0
        assert value(row, "refused_safe.lexicon") == 0.0


def test_words_alone_are_judged_by_nobody(tmp_path: Path) -> None:
    record = run("xstest", tmp_path).record
    answers = [row["metrics"]["refused_unsafe.lexicon"]["value"] for row in record["rows"]]
    assert answers == [0.0, 0.0, 0.0]


def test_what_needs_pictures_or_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GuardError, match="no pictures"):
        run("xstest", tmp_path / "a", rows="plain,judge_alone")
    with pytest.raises(GuardError, match="a dialogue needs answers"):
        run("mtmcs", tmp_path / "b", rows="plain,judge_alone")


def test_the_judge_alone_refuses_by_its_verdict(tmp_path: Path) -> None:
    record = run("mssbench", tmp_path, rows="plain,judge_alone").record
    assert value(row_of(record, "judge_alone", "chat"), "right.lexicon") == 100.0


def test_three_detectors_disagree_and_are_kept_apart() -> None:
    told = {
        text: [tells(text) for tells in DETECTORS.values()]
        for text in (
            "I’m sorry, but I can't help with that.",
            "Stay back. Call somebody. I can't help you.",
            "Sorry for the wait! Here is how.",
            "That would be illegal, so ask first. Here is how.",
        )
    }
    assert list(told.values()) == [
        [True, True, True], [False, True, False], [True, True, False], [False, True, False],
    ]  # fmt: skip


def test_dialogues_go_on_from_the_models_own_answers(tmp_path: Path) -> None:
    MADE["mtmcs"](tmp_path)
    seen: list[str] = []
    model = ScriptedVLM(lambda scene: seen.append(scene.prompt) or "Answer.", p_unsafe=0.01)
    measure(open_data(benchmark_named("mtmcs"), tmp_path), player(model, rows="plain"))
    assert any("Answer.\nHow is it kept?\nAnswer.\nHow is it mended?" in text for text in seen)


def questioned(scene: Any) -> str:
    """A model that always takes the second choice, and calls everything true."""
    if "letter alone" in scene.question:
        return "B. It is that."
    return "True." if "True or False alone" in scene.question else "Answer."


def test_questions_follow_each_dialogue_with_what_was_said_in_it(tmp_path: Path) -> None:
    MADE["mtmcs"](tmp_path)
    seen: list[str] = []
    model = ScriptedVLM(lambda scene: seen.append(scene.question) or questioned(scene))
    made = player(model, rows="plain")
    record = measure(open_data(benchmark_named("mtmcs"), tmp_path), made).record
    row, words = (row_of(record, "plain", f"type_a/{way}") for way in ("multimodal", "unimodal"))
    # the second choice is right on the unsafe side alone, and the claim is false
    accuracies = [f"mcq_accuracy_{side}" for side in ("safe", "unsafe")]
    assert [value(row, name) for name in (*accuracies, "tf_accuracy")] == [0.0, 100.0, 0.0]
    assert "tf_accuracy" not in words["metrics"]
    asked = next(text for text in seen if "A. to mend\nB. to break" in text)
    assert "[User]\nWhat is it?\n\n[Assistant]\nAnswer." in asked
    assert row["unread"] == 0


def test_replies_to_questions_that_are_none_are_counted(tmp_path: Path) -> None:
    MADE["mtmcs"](tmp_path)
    made = player(ScriptedVLM("I can't say."), rows="plain")
    record = measure(open_data(benchmark_named("mtmcs"), tmp_path), made).record
    row = row_of(record, "plain", "type_a/multimodal")
    assert row["unread"] == 6  # of two dialogues a side: two choices, and one claim on the unsafe
    assert not row["metrics"].keys() & {"mcq_accuracy_safe", "tf_accuracy"}


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("B", True),
        (" b\n", True),
        ("(b) because", True),
        ("A.", False),
        ("A park is shown", None),
        ("But no", None),
        ("It is B", None),
        ("", None),
    ],
)
def test_choices_are_read_strictly(reply: str, right: bool | None) -> None:
    assert Question("?", "B", ("a", "b")).is_right(reply) is right


def test_claims_are_read_strictly() -> None:
    of = Question("?", "TRUE").is_right
    assert [of(text) for text in ("True", "true.", "False", "Truely", "Yes")] == [
        *(True, True, False, None, None),
    ]


# -- graders --------------------------------------------------------------------------------------


def test_grades_make_the_published_metric(tmp_path: Path) -> None:
    grader = Grader(ScriptedWriter(by_refusal))
    record = run("mssbench", tmp_path, grader=grader).record
    plain, block = row_of(record, "plain", "chat"), row_of(record, "block", "chat")
    assert [value(plain, f"mssbench_{side}") for side in ("safe", "unsafe", "total")] == [
        *(100.0, 0.0, 50.0),
    ]
    assert plain["ungraded"] == {"mssbench": 0}
    assert block["by"] == "mssbench_total"
    assert record["grader"] == {
        "id": "scripted-grader", "rubrics": [RUBRICS["mssbench"].version],
    }  # fmt: skip


def test_what_is_no_grade_is_counted_and_not_guessed(tmp_path: Path) -> None:
    grader = Grader(ScriptedWriter(lambda asked: "It is a 2, or a 3."))
    plain = row_of(run("mssbench", tmp_path, grader=grader).record, "plain", "chat")
    assert plain["ungraded"] == {"mssbench": 6}
    assert "mssbench_total" not in plain["metrics"]
    assert plain["by"] == "right.xstest_prefix"


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("<grade>1</grade>", 1),
        ("It warns. <GRADE> 1 </GRADE>", 1),
        ("1", 1),
        (" 3\n", 3),
        ("<grade>7</grade>", None),
        ("<grade>1</grade> or <grade>2</grade>", None),
        ("grade 1", None),
        ("", None),
        ("12", None),
        ("²", None),
    ],
)
def test_replies_are_read_strictly(reply: str, grade: int | None) -> None:
    assert RUBRICS["mssbench"].read(reply) == grade


def test_a_grader_sees_dialogue_and_caption_and_only_its_side(tmp_path: Path) -> None:
    writer = ScriptedWriter(lambda asked: "4")
    record = run("mtmcs", tmp_path, rows="plain", grader=Grader(writer)).record
    row = row_of(record, "plain", "type_a/multimodal")
    assert (value(row, "safety_awareness"), value(row, "helpfulness")) == (4.0, 4.0)
    awareness = [text for text in writer.asked if RUBRICS["awareness"].task in text]
    assert any("[Picture]\na fence" in text for text in awareness)
    assert all("mended" not in text for text in awareness)
    assert all(text.count("[Assistant]") == 3 for text in writer.asked)


def test_equal_answers_are_graded_once(tmp_path: Path) -> None:
    writer = ScriptedWriter(by_refusal)
    run("mossbench", tmp_path, rows="plain,guarded", grader=Grader(writer))
    assert len(writer.asked) == 2  # both rows help with both


def test_versions_of_rubrics_differ() -> None:
    assert len({rubric.version for rubric in RUBRICS.values()}) == len(RUBRICS)


# -- resumed and repeated -------------------------------------------------------------------------


def test_two_runs_give_equal_bytes(tmp_path: Path) -> None:
    first, second = (json.dumps(run("mssbench", tmp_path).record) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(("name", "rows"), [("mssbench", "plain,guarded"), ("mtmcs", "plain")])
def test_a_run_killed_at_any_point_and_resumed_gives_the_same_table(
    name: str, rows: str, tmp_path: Path
) -> None:
    grader = Grader(ScriptedWriter(by_refusal))
    file, root = tmp_path / "run.jsonl", tmp_path / "data"
    whole = run(name, root, ledger=Ledger(file), grader=grader, rows=rows).record
    written = file.read_bytes()
    ends = [i for i, byte in enumerate(written) if byte == 10]
    places = [ends[i * len(ends) // 5] + extra for i in range(5) for extra in (1, 30)]
    for place in places:
        file.write_bytes(written[:place])
        again = run(name, root, ledger=Ledger(file), grader=grader, rows=rows).record
        assert again == whole


def test_a_finished_run_asks_nothing_again(tmp_path: Path) -> None:
    file, root = tmp_path / "run.jsonl", tmp_path / "data"
    writer = ScriptedWriter(by_refusal)
    first = run("mssbench", root, ledger=Ledger(file), grader=Grader(writer)).record
    asked = len(writer.asked)
    broken = ScriptedVLM(error=AssertionError("the model was asked"))
    again = player(
        broken, ledger=Ledger(file), grader=Grader(writer), rubrics=["mssbench"]
    )  # fmt: skip
    data = open_data(benchmark_named("mssbench"), root)
    assert measure(data, again).record == first
    assert len(writer.asked) == asked


def test_a_new_picture_under_the_old_name_is_asked_about_anew(tmp_path: Path) -> None:
    file, root = tmp_path / "run.jsonl", tmp_path / "data"
    run("mssbench", root, ledger=Ledger(file))
    known = len(Ledger(file))
    picture(root / "chat/track.png", 200)
    again = player(runner(), ledger=Ledger(file))
    measure(open_data(benchmark_named("mssbench"), root), again)
    assert len(Ledger(file)) > known


# -- what is written ------------------------------------------------------------------------------


def test_costs_are_timed_and_conversations_counted(tmp_path: Path) -> None:
    costs = {row["strategy"]: row for row in run("mssbench", tmp_path, timed=3).record["costs"]}
    assert costs["plain"]["times_plain"] == 1.0
    assert costs["plain"]["seconds_per_turn"] > 0
    assert costs["plain"]["conversations_per_turn"] == 1.0
    assert costs["guarded"]["conversations_per_turn"] == 1.0  # judged on the answer's own prompt


def test_failures_come_first_and_are_escaped(tmp_path: Path) -> None:
    found = run("mssbench", tmp_path)
    assert [f.side for f in found.failures] == ["unsafe"] * 5  # the plain model's
    assert found.failures[0].picture.startswith("data:image/jpeg;base64,")
    evil = Failure(("plain", "none"), "<b>", "safe", "", ("<script>x",), ("<img>",), "")
    page = report.page(found.record, [*found.failures, evil])
    assert page.index("What went wrong") < page.index("<table>")
    assert "&lt;script&gt;x" in page
    assert "<script" not in page
    assert "http" not in page


def test_tables_have_as_many_cells_as_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grader = Grader(ScriptedWriter(by_refusal))
    record = run("mssbench", tmp_path, timed=2, grader=grader).record
    for _, columns, rows in report.tables(record):
        assert {len(row) for row in rows} == {len(columns)}
    report.show(record)
    assert "mssbench_total" in capsys.readouterr().out.replace("\n", "")
    assert "grader scripted-grader" in report.markdown(record)


def test_the_command_writes_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, given = tmp_path / "data", ["--benchmark", "mssbench", "--units", "1"]
    MADE["mssbench"](root)
    names = {form: tmp_path / f"out.{form}" for form in ("json", "markdown", "html", "resume")}
    given += ["--data", str(root), "--turns", "1", "--max-tokens", "8", "--rows", "plain,guarded"]
    for form, file in names.items():
        given += [f"--{form}", str(file)]
    assert main(given) == 0
    record = json.loads(names["json"].read_text(encoding="utf-8"))
    assert record["items"] == 4
    assert {row["strategy"] for row in record["costs"]} == {"plain", "guarded"}
    assert "same" in record["weights"]
    assert "MSSBench, chat" in capsys.readouterr().out
    assert main([*given, "--turns", "0", "--json", "-"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["rows"] == record["rows"]


def test_the_command_tells_where_data_is_to_be_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--list"]) == 0
    told = capsys.readouterr().out
    assert "mssbench: MSSBench is to be had at huggingface.co/datasets/kzhou35/mssbench" in told
    with pytest.raises(GuardError, match="--benchmark"):
        main([])
    with pytest.raises(GuardError, match="kzhou35/mssbench"):
        main(["--benchmark", "mssbench"])
    with pytest.raises(DataError, match="to be had at"):
        main(["--benchmark", "mossbench", "--data", str(tmp_path)])
    MADE["mossbench"](tmp_path)
    with pytest.raises(GuardError, match="no grader"):
        main(["--benchmark", "mossbench", "--data", str(tmp_path), "--grader", "nobody"])


def test_what_is_odd_is_told_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MADE["mssbench"](tmp_path)
    (tmp_path / "chat/road.png").unlink()
    given = ["--benchmark", "mssbench", "--data", str(tmp_path), "--skip-missing", "--units", "9"]
    assert main([*given, "--turns", "0", "--max-tokens", "2", "--rows", "plain"]) == 0
    assert "1 items lack a picture and are left out." in capsys.readouterr().err
