from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from safecode_guard.bench.ledger import Ledger
from safecode_guard.bench.paired.asking import Asker
from safecode_guard.bench.paired.items import tiny_exam
from safecode_guard.bench.paired.panel import panel
from safecode_guard.bench.paired.sweep import (
    START,
    Found,
    Trial,
    _is_harmless,
    _score,
    chosen,
    groups,
    sweep,
    write_record,
)
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.models.families import family_of
from safecode_guard.policy import DecodingPolicy
from safecode_guard.steering.safecode.contrast import check_contrast
from safecode_guard.steering.safecode.parameters import resolve
from safecode_guard.tiny.load import weights_path

PLAIN = Found(average=60.0, scary_refused=40.0, well_formed=100.0, utility=95.0)
GOOD = Found(average=96.0, scary_refused=40.0, well_formed=99.6, utility=94.6)


def test_the_score_is_the_mean_over_judges() -> None:
    assert _score({"same": GOOD, "nano": replace(GOOD, average=91.0)}) == 93.5


@pytest.mark.parametrize(
    "cost", [{"scary_refused": 40.5}, {"well_formed": 99.4}, {"utility": 94.4}]
)
def test_a_setting_does_harm_if_it_costs_anything_under_any_judge(cost: dict[str, float]) -> None:
    assert _is_harmless({"same": GOOD, "nano": GOOD}, PLAIN)
    assert not _is_harmless({"same": GOOD, "nano": replace(GOOD, **cost)}, PLAIN)


def test_what_was_not_asked_about_does_no_harm() -> None:
    silent = replace(GOOD, scary_refused=None, utility=None)
    assert _is_harmless({"same": silent}, replace(PLAIN, scary_refused=None, utility=None))


def test_a_milder_setting_wins_unless_a_stronger_one_is_clearly_better() -> None:
    def trial(push: float, score: float, harmless: bool = True) -> Trial:
        return Trial("push", {"lambda_boost": push}, {}, {}, score, harmless)

    tried = [trial(1, 90.0), trial(2, 94.7), trial(4, 95.1)]
    assert chosen(tried).change == {"lambda_boost": 2}
    assert chosen([*tried, trial(6, 96.0)]).change == {"lambda_boost": 6}
    assert chosen([*tried, trial(6, 99.0, harmless=False)]).change == {"lambda_boost": 2}
    assert chosen([trial(1, 90.0, False), trial(2, 95.0, False)]).change == {"lambda_boost": 2}


def test_every_setting_of_the_grid_is_a_valid_policy() -> None:
    for _, changes in groups():
        for change in changes:
            parameters = resolve(DecodingPolicy(**{**START, **change}), {})
            check_contrast(alpha=parameters.alpha, normalise=parameters.normalise)


def test_a_sweep_keeps_the_best_of_each_group() -> None:
    folder = weights_path("chat")
    model = TransformersModel.load(str(folder), local_files_only=True)
    asker = Asker(model, identity="chat", ledger=Ledger())
    exam = tiny_exam(6, scary=2, looks=1, split="validation")
    judgements = {
        each.name: asker.judge(each, exam.items) for each in panel("truth", model, folder=folder)
    }
    push = [{"lambda_boost": x, "lambda_supp": x} for x in (0.0, 8.0)]
    grid = [("push", push), ("reach", [{"guided_steps": n} for n in (0, 5)])]
    found = sweep(exam, asker, judgements, grid=grid)
    assert found.record["lambda_boost"] == 8.0
    assert found.record["guided_steps"] == 5
    assert len(found.trials) == 4
    idle = found.trials[2]
    assert idle.found["truth"].average == found.plain.average  # no guided step, no change
    assert found.trials[3].found["truth"].average > found.plain.average
    assert json.loads(json.dumps(found.to_json()))["steering"] == dict(found.record)


def test_the_record_is_what_the_model_is_then_steered_by(tmp_path: Path) -> None:
    file = tmp_path / "safecode.json"
    file.write_text('{"schema": 1, "family": "llava", "judge_prompt": "Safe? {query}"}')
    record = {"alpha": 0.4, "lambda_boost": 3.0}
    write_record(tmp_path, record)
    family = family_of(object(), json.loads(file.read_text()))
    assert family.judge_prompt == "Safe? {query}"
    parameters = resolve(DecodingPolicy(), family.steering)
    assert (parameters.alpha, parameters.lambda_boost) == (0.4, 3.0)


def test_a_record_can_be_written_where_there_is_none(tmp_path: Path) -> None:
    write_record(tmp_path, {"alpha": 0.4})
    family = family_of(object(), json.loads((tmp_path / "safecode.json").read_text()))
    assert family.steering == {"alpha": 0.4}


def test_the_shipped_record_is_complete() -> None:
    """The embedded model's values are its own, all of them chosen by the sweep."""
    record = json.loads((weights_path("chat") / "safecode.json").read_text())["steering"]
    assert set(record) == set(START) - {"noise_order"}
