from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

from safecode_guard.errors import JudgeError, PolicyError
from safecode_guard.judges.chat import ChatJudge
from safecode_guard.judges.factory import make_judge
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.local import LocalJudge
from safecode_guard.judges.protocol import BaseJudge
from safecode_guard.models.protocol import Engine
from safecode_guard.policy import (
    ChatJudgeConfig,
    CustomJudgeConfig,
    JudgeConfig,
    LocalJudgeConfig,
    SameModelJudgeConfig,
)
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from tests.unit.judges.engines import TABLE, TableEngine


def unloaded(config: LocalJudgeConfig) -> Engine:
    raise AssertionError("nothing is loaded before it is asked")


def test_same_model_judges_with_the_guarded_model() -> None:
    vlm = ScriptedVLM()
    config = SameModelJudgeConfig(min_label_mass=0.3, caption=True, rationale=True)
    judge = make_judge(config, engine=vlm)
    assert isinstance(judge, LabelLogitsJudge)
    assert judge.engine is vlm
    assert (judge.min_label_mass, judge.caption, judge.rationale) == (0.3, True, True)


def test_local_judge_is_made_without_loading() -> None:
    assert isinstance(make_judge(LocalJudgeConfig(model="none/such"), load=unloaded), LocalJudge)


@pytest.mark.parametrize("config", [SameModelJudgeConfig(), ChatJudgeConfig()])
def test_chat_model_becomes_a_chat_judge(config: JudgeConfig) -> None:
    model = FakeListChatModel(responses=["safe"])
    judge = make_judge(
        config.model_copy(update={"timeout_s": 3.0}), engine=ScriptedVLM(), own=model
    )
    assert isinstance(judge, ChatJudge)
    assert (judge.chat_model, judge.timeout_s) == (model, 3.0)


def test_own_judge_goes_before_the_configuration() -> None:
    own = ScriptedJudge()
    assert make_judge(SameModelJudgeConfig(), engine=ScriptedVLM(), own=own) is own
    assert make_judge(CustomJudgeConfig(id="scripted"), own=own) is own


@pytest.mark.parametrize(
    ("config", "own", "message"),
    [
        (SameModelJudgeConfig(), None, "guarded model cannot judge"),
        (ChatJudgeConfig(), None, "no chat model was given"),
        (CustomJudgeConfig(id="mine"), None, "'mine' was given"),
        (CustomJudgeConfig(id="mine"), ScriptedJudge(), "wants the judge 'mine'"),
        (SameModelJudgeConfig(), object(), "lacks id, prompt_version"),
        (SameModelJudgeConfig(), "gpt", "'str' is no judge"),
        (SameModelJudgeConfig(), ScriptedJudge, "'ScriptedJudge' is a class, no judge"),
        (LocalJudgeConfig(model="none/such"), None, "nothing can load its model"),
    ],
)
def test_what_is_missing_is_named(config: JudgeConfig, own: object, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        make_judge(config, own=own)


def test_a_vocabulary_without_the_labels_is_told_at_construction(monkeypatch: Any) -> None:
    monkeypatch.setattr(TABLE, "encode", lambda text: [7])
    with pytest.raises(PolicyError, match="begins 'safe' and 'unsafe' with the same tokens"):
        make_judge(SameModelJudgeConfig(), engine=TableEngine())


@pytest.mark.parametrize("lacking", [{"vocabulary": None}, {"label_scores": False}])
def test_model_that_keeps_its_scores_cannot_judge_itself(lacking: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="guarded model cannot judge") as caught:
        make_judge(SameModelJudgeConfig(), engine=TableEngine(**lacking))
    assert isinstance(caught.value.__cause__, JudgeError)


def test_half_a_judge_is_told_what_it_lacks_and_what_brings_it() -> None:
    class Half:
        id = "half"

        def judge(self, request: object) -> None: ...

    lacks = r"lacks prompt_version, abilities, members, ajudge, close\. Derive it from .*BaseJudge"
    with pytest.raises(PolicyError, match=lacks):
        make_judge(SameModelJudgeConfig(), own=Half())


def test_judge_without_a_name_is_told_so() -> None:
    class Nameless(BaseJudge):
        pass

    with pytest.raises(PolicyError, match=r"lacks id\."):
        make_judge(SameModelJudgeConfig(), own=Nameless())
