from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from safecode_guard.errors import JudgeError, UnsupportedFamily
from safecode_guard.judges.local import LocalJudge
from safecode_guard.judges.protocol import JudgeRequest, PromptingJudge
from safecode_guard.pipeline.factory import load_local
from safecode_guard.policy import LocalJudgeConfig
from safecode_guard.testing import ScriptedVLM

Make = Callable[..., JudgeRequest]
CONFIG = LocalJudgeConfig(model="some/judge", min_label_mass=0.4)


def test_nothing_is_loaded_before_it_is_asked_and_then_only_once(request_for: Make) -> None:
    loads: list[int] = []

    def load(_: LocalJudgeConfig) -> ScriptedVLM:
        loads.append(1)
        return ScriptedVLM(p_unsafe=0.8)

    judge = LocalJudge(CONFIG, load=load)
    assert (judge.id, loads) == ("local:some/judge", [])
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


def test_it_never_continues_the_guarded_models_prompt() -> None:
    assert not isinstance(LocalJudge(CONFIG, load=load_local), PromptingJudge)


def test_model_that_cannot_be_loaded_is_a_failed_check(request_for: Make) -> None:
    def load(_: LocalJudgeConfig) -> ScriptedVLM:
        raise UnsupportedFamily("needs torchvision")

    with pytest.raises(JudgeError, match="'some/judge' could not be loaded"):
        LocalJudge(CONFIG, load=load).judge(request_for())


def test_missing_directory_is_a_failed_check(request_for: Make, tmp_path: object) -> None:
    judge = LocalJudge(LocalJudgeConfig(model=f"{tmp_path}/nothing"), load=load_local)
    with pytest.raises(JudgeError, match="could not be loaded"):
        judge.judge(request_for())
