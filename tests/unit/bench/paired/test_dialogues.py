"""Dialogues of which only the intent differs."""

from __future__ import annotations

import json

import pytest

from safecode_guard.bench.ledger import Ledger
from safecode_guard.bench.paired.asking import Asker
from safecode_guard.bench.paired.dialogues import COURSES, dialogues, measure_dialogues
from safecode_guard.bench.paired.panel import panel
from safecode_guard.bench.paired.run import main
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.tiny.load import weights_path
from safecode_guard.turns.scene import scene_of

CHAT = weights_path("chat")


def test_risky_and_innocent_dialogues_differ_in_their_requests_alone() -> None:
    made = dialogues(4, seed=1)
    assert len(made) == 4 * len(COURSES) * 2
    for risky, innocent in zip(made[::2], made[1::2], strict=True):
        assert (risky.risky, innocent.risky) == (True, False)
        assert (risky.course, len(risky.turns)) == (innocent.course, len(innocent.turns))
        pictures = {i.turn.images[0].sha256 for i in (*risky.turns, *innocent.turns)}
        assert len(pictures) == 1
        assert [i.turn.messages[-1].role for i in risky.turns] == ["user"] * 3


@pytest.mark.parametrize(
    ("course", "kinds"), [("grown", ["safe", "safe", "unsafe"]), ("stated", ["unsafe"] * 3)]
)
def test_a_turn_is_unsafe_from_the_risky_request_on(course: str, kinds: list[str]) -> None:
    made = [each for each in dialogues(3, seed=1) if each.course == course]
    assert all([i.kind for i in each.turns] == kinds for each in made if each.risky)
    assert all(i.kind == "safe" for each in made if not each.risky for i in each.turns)
    before = {len(each.before) for each in made if each.risky}
    assert before == {kinds.count("safe")}


def test_a_judge_is_shown_the_whole_dialogue() -> None:
    for each in dialogues(12, seed=1):
        shown = scene_of(each.turns[-1].turn).request.split("\n")
        assert [line for line in shown if line in [i.turn.query for i in each.turns]] == [
            item.turn.query for item in each.turns
        ]


def test_the_truth_as_a_judge_is_never_wrong() -> None:
    model = TransformersModel.load(str(CHAT), local_files_only=True)
    asker = Asker(model, identity="x", ledger=Ledger())
    record = measure_dialogues(asker, panel("truth", model, folder=CHAT), 2, seed=1)
    lines = [(line["course"], line["strategy"]) for line in record["dialogues"]]
    assert lines == [(course, row) for course in COURSES for row in ("plain", "guarded")]
    for line in record["dialogues"]:
        assert (line["risky_judged"], line["innocent_judged"]) == (100.0, 100.0)


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--dialogues", "--pairs", "1", "--judges", "same"]) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "stated" in shown
    assert main(["--dialogues", "--pairs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == 1
