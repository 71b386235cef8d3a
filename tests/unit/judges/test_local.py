from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from safecode_guard.errors import JudgeError, UnsupportedFamily
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.local import UNREAD, LocalJudge
from safecode_guard.judges.prompts import GENERAL
from safecode_guard.judges.protocol import JudgeRequest, OpenPrompt, judges_on
from safecode_guard.models.families import Family
from safecode_guard.models.protocol import Sampling
from safecode_guard.policy import LocalJudgeConfig
from safecode_guard.testing import ScriptedVLM
from tests.unit.judges.engines import TableEngine

Make = Callable[..., JudgeRequest]
CONFIG = LocalJudgeConfig(model="some/judge", min_label_mass=0.4)
QUESTION = "{query} Safe or unsafe?"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "judge"
    made.mkdir()
    (made / "config.json").write_text(json.dumps({"model_type": "llava"}))
    (made / "safecode.json").write_text(json.dumps({"judge_prompt": QUESTION}))
    return made


def test_nothing_is_loaded_before_it_is_asked_and_then_only_once(request_for: Make) -> None:
    loads: list[int] = []

    def load(_: LocalJudgeConfig) -> ScriptedVLM:
        loads.append(1)
        return ScriptedVLM(p_unsafe=0.8)

    judge = LocalJudge(CONFIG, load=load)
    assert (judge.id, judge.prompt_version, loads) == ("local:some/judge", UNREAD, [])
    assert judge.judge_many([]) == loads == []
    threads = [threading.Thread(target=judge.judge, args=(request_for(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert judge.judge(request_for()).p_unsafe == pytest.approx(0.8, abs=1e-5)
    assert loads == [1]


def test_configuration_reaches_the_judge(request_for: Make) -> None:
    config = LocalJudgeConfig(model="m", min_label_mass=0.4, caption=True, rationale=True)
    judge = LocalJudge(config, load=lambda _: ScriptedVLM("Words.", label_mass=0.3))
    judgement = judge.judge(request_for())
    assert judgement.parse_status == "low_mass"
    assert (judgement.caption, judgement.rationale) == ("Words.", "Words.")
    assert judgement.prompt_version == judge.prompt_version


def test_id_is_no_path_and_the_version_is_of_the_models_own_question(
    folder: Path, request_for: Make
) -> None:
    family = Family("llava", judge_prompt=QUESTION)
    config = LocalJudgeConfig(model=str(folder), min_label_mass=0.4)
    judge = LocalJudge(config, load=lambda _: ScriptedVLM(family=family))
    before = (judge.id, judge.prompt_version)
    assert judge.id.startswith("local:judge@")
    assert str(folder.parent) not in judge.id
    assert judge.prompt_version.startswith("llava-")
    judgement = judge.judge(request_for())
    assert (judgement.judge_id, judgement.prompt_version) == before
    assert (judge.id, judge.prompt_version) == before
    same = LabelLogitsJudge(ScriptedVLM(family=family), min_label_mass=0.4)
    assert judgement.prompt_version == same.prompt_version


def test_version_is_the_truth_whatever_was_expected(folder: Path, request_for: Make) -> None:
    judge = LocalJudge(LocalJudgeConfig(model=str(folder)), load=lambda _: ScriptedVLM())
    assert judge.judge(request_for()).prompt_version == judge.prompt_version == GENERAL.version


def test_it_never_asks_on_the_guarded_models_prompt(request_for: Make) -> None:
    guarded = ScriptedVLM(p_unsafe=0.1)
    session = guarded.open([request_for().scene.turn], Sampling())
    judge = LocalJudge(CONFIG, load=lambda _: ScriptedVLM(p_unsafe=0.9))
    found = judge.judge(request_for(prompt=OpenPrompt(guarded, session, 0)))
    assert found.p_unsafe == pytest.approx(0.9, abs=1e-5)
    assert not judges_on(judge, guarded)
    assert guarded.calls == []


def test_closing_lets_the_model_go_and_asking_loads_it_again(request_for: Make) -> None:
    loaded: list[weakref.ref[ScriptedVLM]] = []

    def load(_: LocalJudgeConfig) -> ScriptedVLM:
        vlm = ScriptedVLM(p_unsafe=0.8)
        loaded.append(weakref.ref(vlm))
        return vlm

    judge = LocalJudge(CONFIG, load=load)
    judge.close()
    version = judge.judge(request_for()).prompt_version
    judge.close()
    judge.close()
    gc.collect()
    assert loaded[0]() is None
    assert judge.prompt_version == version
    assert judge.judge(request_for()).p_unsafe == pytest.approx(0.8, abs=1e-5)
    assert len(loaded) == 2


@pytest.mark.parametrize(
    "error",
    [UnsupportedFamily("needs torchvision"), OSError("none"), ValueError("?"), ImportError("no")],
)
def test_model_that_cannot_be_loaded_is_a_failed_check(error: Exception, request_for: Make) -> None:
    def load(_: LocalJudgeConfig) -> ScriptedVLM:
        raise error

    with pytest.raises(JudgeError, match="'some/judge' could not be loaded") as caught:
        LocalJudge(CONFIG, load=load).judge(request_for())
    assert caught.value.__cause__ is error


def test_model_without_scores_is_a_failed_check(request_for: Make) -> None:
    judge = LocalJudge(CONFIG, load=lambda _: TableEngine(label_scores=False))
    with pytest.raises(JudgeError, match="no scores"):
        judge.judge(request_for())
