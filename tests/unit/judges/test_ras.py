"""RAS's risk as a judge."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from safecode_guard.errors import JudgeError, JudgeTimeout, PolicyError
from safecode_guard.judges.factory import make_judge
from safecode_guard.judges.protocol import BatchJudge, JudgeRequest, judges_on
from safecode_guard.judges.ras import RasJudge
from safecode_guard.policy import RasJudgeConfig
from safecode_guard.risk.arithmetic import steepness
from safecode_guard.risk.prototypes import Fitted, Prototypes
from safecode_guard.testing import Scene, ScriptedServer, ScriptedVLM

Make = Callable[..., JudgeRequest]


def engine() -> ScriptedVLM:
    """Return a model that refuses, in three tokens, where it reads of a cliff."""

    def answer(scene: Scene) -> str:
        return "no no no" if "cliff" in scene.question else "yes yes yes"

    return ScriptedVLM(answer)


def prototypes(model: ScriptedVLM, request_for: Make) -> Prototypes:
    from safecode_guard.models.probing import probe

    (answer,) = probe(model, [request_for("a cliff").scene.turn], max_tokens=3, first_logits=3)
    assert answer.logits is not None
    return Prototypes(answer.logits, Fitted(model.id, s0=0.5, k=steepness(0.5)))


@pytest.fixture
def judge(request_for: Make) -> RasJudge:
    model = engine()
    return RasJudge(model, prototypes(model, request_for))


def test_the_probability_is_the_certainty(judge: RasJudge, request_for: Make) -> None:
    found = judge.judge(request_for("a cliff"))
    assert found.p_unsafe == pytest.approx(0.99, abs=1e-6)
    assert (found.judge_id, found.label) == (f"ras:{judge.prototypes.id}", None)
    assert judge.judge(request_for("a park")).p_unsafe < 0.5


def test_many_are_asked_together_in_order(judge: RasJudge, request_for: Make) -> None:
    assert isinstance(judge, BatchJudge)
    found = judge.judge_many([request_for(text) for text in ("a park", "a cliff")])
    assert [round(each.p_unsafe or 0) for each in found] == [0, 1]


def test_it_asks_on_the_guarded_model(judge: RasJudge) -> None:
    assert judges_on(judge, judge.engine)


def test_other_stages_are_a_failed_check(judge: RasJudge, request_for: Make) -> None:
    for stage in ("tool_call", "tool_result", "output"):
        with pytest.raises(JudgeError, match=stage):
            judge.judge(request_for(stage=stage))


def test_a_deadline_that_has_passed_is_no_verdict(judge: RasJudge, request_for: Make) -> None:
    with pytest.raises(JudgeTimeout):
        judge.judge(request_for(deadline=time.monotonic() - 1))


def test_a_model_that_fails_is_a_failed_check(request_for: Make) -> None:
    from safecode_guard.errors import ModelError

    broken = ScriptedVLM(error=ModelError("down"))
    made = prototypes(engine(), request_for)
    judge = RasJudge(broken, Prototypes(made.logits, Fitted(broken.id, s0=0.5, k=9.0)))
    with pytest.raises(JudgeError, match="could not be asked"):
        judge.judge(request_for())


def test_what_the_model_sees_is_told_if_asked_for(request_for: Make) -> None:
    model = engine()
    made = prototypes(model, request_for)
    assert RasJudge(model, made).judge(request_for()).caption is None
    assert RasJudge(model, made, caption=True).judge(request_for()).caption


def test_a_policy_makes_it(tmp_path: Path, request_for: Make) -> None:
    model, file = engine(), tmp_path / "ras.safetensors"
    prototypes(model, request_for).write(file)
    config = RasJudgeConfig(prototypes=str(file))
    assert make_judge(config, engine=model).id.startswith("ras:")
    with pytest.raises(PolicyError, match="no guarded model"):
        make_judge(config)
    with pytest.raises(PolicyError, match="cannot be read"):
        make_judge(RasJudgeConfig(prototypes=str(tmp_path / "none")), engine=model)


def test_what_cannot_be_asked_is_refused_at_the_start(tmp_path: Path, request_for: Make) -> None:
    server = ScriptedServer(engine())
    file = tmp_path / "ras.safetensors"
    Prototypes(torch.zeros(3, 4), Fitted(server.id, s0=0.5, k=9.0)).write(file)
    with pytest.raises(PolicyError, match="keeps its logits"):
        make_judge(RasJudgeConfig(prototypes=str(file)), engine=server)
    Prototypes(torch.zeros(3, 4), Fitted("other@1", s0=0.5, k=9.0)).write(file)
    with pytest.raises(PolicyError, match="'other@1'"):
        make_judge(RasJudgeConfig(prototypes=str(file)), engine=engine())
