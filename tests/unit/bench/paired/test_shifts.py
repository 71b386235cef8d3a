"""Pairs under ordinary changes of pictures and wordings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from safecode_guard.bench.ledger import Ledger
from safecode_guard.bench.paired.asking import Answer, Asker, Plan
from safecode_guard.bench.paired.items import Exam, Item, about, tiny_exam
from safecode_guard.bench.paired.panel import Panelist, panel
from safecode_guard.bench.paired.rows import ROWS
from safecode_guard.bench.paired.run import main
from safecode_guard.bench.paired.shifted import measure_shifts
from safecode_guard.bench.paired.shifts import SHIFTS, shifted, shifts_named
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.errors import GuardError
from safecode_guard.judges.protocol import BaseJudge, JudgeAbilities
from safecode_guard.tiny.load import weights_path
from safecode_guard.verdict import Judgement
from tests.unit.bench.paired.exams import exam, item

CHAT = weights_path("chat")
PICTURES = ("framed", "cropped", "scaled", "rotated", "compressed", "grey", "tinted")
WORDINGS = ("formal", "casual", "polite", "misspelt", "upper_case")


@pytest.fixture(scope="module")
def few() -> Exam:
    return tiny_exam(3, scary=2, looks=1, split="test")


def pictures(items: Sequence[Item]) -> list[list[str]]:
    return [[image.sha256 for image in each.turn.images] for each in items]


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_is_seeded_and_changes_every_pair(few: Exam, name: str) -> None:
    first, again = shifted(few, name), shifted(few, name)
    assert [i.key for i in first.items] == [i.key for i in again.items]
    pairs = few.of("safe", "unsafe")
    assert [(i.kind, i.unit, i.truth) for i in first.items] == [
        (i.kind, i.unit, i.truth) for i in pairs
    ]
    changed = [a.turn.key() != b.turn.key() for a, b in zip(first.items, pairs, strict=True)]
    assert any(changed) if name == "misspelt" else all(changed)  # a short text may escape slips


@pytest.mark.parametrize("name", WORDINGS)
def test_both_halves_of_a_pair_are_asked_in_the_same_words(few: Exam, name: str) -> None:
    items = shifted(few, name).items
    for safe, unsafe in zip(items[::2], items[1::2], strict=True):
        assert safe.turn.query == unsafe.turn.query
    assert pictures(items) == pictures(few.of("safe", "unsafe"))


@pytest.mark.parametrize("name", PICTURES)
def test_a_change_of_pictures_leaves_the_words(few: Exam, name: str) -> None:
    before, after = few.of("safe", "unsafe"), shifted(few, name).items
    assert [i.turn.query for i in after] == [i.turn.query for i in before]


def test_a_second_picture_stands_before_or_after_the_own_one(few: Exam) -> None:
    own = few.of("safe", "unsafe")[0].turn.images[0].sha256
    before, after = (
        [image.sha256 for image in shifted(few, name).items[0].turn.images]
        for name in ("second_before", "second_after")
    )
    assert (before.index(own), after.index(own), len(before), len(after)) == (1, 0, 2, 2)


def test_a_follow_up_asks_after_the_picture_was_described(few: Exam) -> None:
    turn = shifted(few, "follow_up").items[0].turn
    assert [message.role for message in turn.messages] == ["user", "assistant", "user"]
    assert turn.messages[1].text == few.items[0].caption
    assert turn.query == few.items[0].turn.query


def test_shifts_are_named() -> None:
    assert shifts_named("all") == [*SHIFTS]
    assert shifts_named("framed,casual,framed") == ["framed", "casual"]
    with pytest.raises(GuardError, match="'upside_down'"):
        shifts_named("framed,upside_down")


def test_a_shift_that_needs_more_than_is_known_says_so() -> None:
    of = exam([item("a", kind, caption="") for kind in ("safe", "unsafe")])  # type: ignore[arg-type]
    assert len(shifted(of, "upper_case").items) == 2
    with pytest.raises(GuardError, match="'formal' needs phrases"):
        shifted(of, "formal")


# -- judging and measuring ---------------------------------------------------------------------


class OneByOne(BaseJudge):
    """Finds a picture by itself unsafe if it is red, and several together always safe."""

    id = "one"
    abilities = JudgeAbilities(honours_deadline=True)

    def judge(self, request: object) -> Judgement:
        pictures = request.scene.images  # type: ignore[attr-defined]
        red = len(pictures) == 1 and pictures[0].pixels.getpixel((0, 0))[0] > 200
        return Judgement(
            judge_id="one", prompt_version="1", p_unsafe=0.9 if red else 0.1, parse_status="logits"
        )


@pytest.mark.parametrize(("shown", "p_unsafe"), [("together", 0.1), ("each", 0.9), ("both", 0.9)])
def test_the_gravest_look_at_several_pictures_counts(
    chat: TransformersModel, shown: str, p_unsafe: float
) -> None:
    red, grey = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "grey")
    two = replace(item("a", "unsafe"), turn=about([red, grey], "How?"))
    asker = Asker(chat, identity="x", ledger=Ledger())
    judged = asker.judge(Panelist("one", OneByOne(), "one", shown=shown), [two])  # type: ignore[arg-type]
    assert judged[two.key].p_unsafe == p_unsafe


def test_a_judges_ending_says_how_pictures_are_shown(chat: TransformersModel) -> None:
    both, each, together = panel("same,same_each,same_together", chat, folder=CHAT)
    assert [p.shown for p in (both, each, together)] == ["both", "each", "together"]
    assert both.identity == each.identity


@pytest.fixture(scope="module")
def chat() -> TransformersModel:
    return TransformersModel.load(str(CHAT), local_files_only=True)


def test_shifts_are_measured_beside_the_unchanged_pairs(chat: TransformersModel, few: Exam) -> None:
    asker = Asker(chat, identity="x", ledger=Ledger())
    judges = panel("truth", chat, folder=CHAT)
    record = measure_shifts(few, asker, judges, ["framed", "casual"])
    assert [line["shift"] for line in record["shifts"]] == ["none", "framed", "casual"]
    for line in record["shifts"]:
        assert (line["recall"], line["false_alarms"]) == (100.0, 0.0)
        rows = line["rows"]
        assert rows["naive"]["unsafe_refused"] == 100.0  # by the guard's own words
        difference = rows["guarded"]["average"] - rows["naive"]["average"]
        assert line["guarded_minus_naive"]["points"] == pytest.approx(difference, abs=0.02)
        assert rows["retry"]["obeyed"] >= rows["guarded"]["obeyed"]


def test_the_command_resumes_and_writes_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ledger, table = tmp_path / "run.jsonl", tmp_path / "table.md"
    given = ["--pairs", "2", "--scary", "0", "--looks", "0", "--shift", "framed,follow_up"]
    given += ["--resume", str(ledger), "--markdown", str(table)]
    assert main([*given, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    written = ledger.read_text(encoding="utf-8")
    assert main(given) == 0
    shown = capsys.readouterr().out
    assert ledger.read_text(encoding="utf-8") == written  # nothing was asked again
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "…" not in shown
    assert "follow_up" in shown
    assert record["pairs"] == 2
    assert "| framed | same |" in table.read_text(encoding="utf-8")


def test_answers_carry_what_their_verdicts_say(chat: TransformersModel, few: Exam) -> None:
    asker = Asker(chat, identity="x", ledger=Ledger())
    wrong = {
        i.key: Judgement(judge_id="j", prompt_version="1", p_unsafe=1.0, parse_status="logits")
        for i in few.items
    }
    found: dict[str, dict[str, Answer]] = {}
    for name in ("plain", "guarded", "replace", "naive"):
        plan = Plan(ROWS[name], wrong, few.of("safe", "unsafe"))
        asker.prepare([plan])
        found[name] = asker.answers(plan)
    assert {answer.obeyed for answer in found["plain"].values()} == {None}
    assert {answer.obeyed for answer in found["guarded"].values()} <= {True, False}
    assert all(answer.withheld for answer in found["naive"].values())
    for key, answer in found["guarded"].items():
        replaced = found["replace"][key]
        assert replaced.withheld is (answer.obeyed is False)
        assert replaced.followed_by == (None if answer.obeyed else "replace")
