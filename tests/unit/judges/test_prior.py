"""What a judge says of nothing, and that it is taken off what it says of something."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.judges.factory import make_judge
from safecode_guard.judges.failsafe import run_judge
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.labels import LabelTokens, log_odds, verdict_probability
from safecode_guard.judges.prior import NOTHING, contentless
from safecode_guard.judges.protocol import JudgeRequest
from safecode_guard.policy import LocalJudgeConfig, SameModelJudgeConfig
from safecode_guard.taxonomy import STAGES, Stage
from safecode_guard.testing import Scene, ScriptedVLM
from tests.reference import judging

Make = Callable[..., JudgeRequest]
PRIORS = dict(zip(NOTHING, (0.6, 0.9, 0.7), strict=True))


def biased(scene: Scene) -> float:
    """Finds danger in nothing, and a little more in something."""
    if scene.images[0].getpixel((0, 0)) == (128, 128, 128):
        return next(p for text, p in PRIORS.items() if text in scene.question)
    return 0.8


def blackboard(p: float) -> float:
    return judging.debiased(1 - p, p, [(1 - q, q) for q in PRIORS.values()])


@given(st.floats(0.01, 0.99), st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4))
def test_the_prior_taken_off_is_the_blackboards(p: float, nothing: list[float]) -> None:
    import math

    scores = {1: math.log(1 - p), 2: math.log(p)}
    labels = LabelTokens(frozenset({1}), frozenset({2}))
    prior = sum(map(log_odds, nothing)) / len(nothing)
    found, _ = verdict_probability(scores, labels, bias=prior)
    expected = judging.debiased(1 - p, p, [(1 - q, q) for q in nothing])
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_said_of_nothing_is_asked_once_a_stage_and_taken_off(
    stage: Stage, request_for: Make
) -> None:
    engine = ScriptedVLM(p_unsafe=biased, label_mass=0.8)
    judge = LabelLogitsJudge(engine, debias=True)
    request = request_for(stage=stage)
    found = [judge.judge(request), judge.judge(request)]
    for one in found:
        assert one.p_unsafe == pytest.approx(blackboard(0.8), abs=1e-4)
        assert one.label_mass == pytest.approx(0.8, abs=1e-4)
    assert [rows for _, rows, _ in engine.calls] == [len(NOTHING), 1, 1]
    judge.judge(request_for(stage="input" if stage != "input" else "output"))
    assert [rows for _, rows, _ in engine.calls] == [len(NOTHING), 1, 1, len(NOTHING), 1]


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_asked_about_as_the_stage_asks(stage: Stage) -> None:
    for request, text in zip(contentless(stage), NOTHING, strict=True):
        assert request.stage == stage
        assert len(request.scene.images) == 1
        subject = {
            "input": request.scene.instruction,
            "tool_call": request.tool_call and request.tool_call.name,
            "tool_result": request.result,
            "output": request.answer,
        }
        assert subject[stage] == text


def test_it_is_off_by_default_and_part_of_the_version(request_for: Make) -> None:
    engine = ScriptedVLM(p_unsafe=biased)
    plain, own = LabelLogitsJudge(engine), LabelLogitsJudge(engine, debias=True)
    assert plain.judge(request_for()).p_unsafe == pytest.approx(0.8, abs=1e-4)
    assert plain.prompt_version != own.prompt_version
    same = make_judge(SameModelJudgeConfig(debias=True), engine=engine)
    local = make_judge(LocalJudgeConfig(model="m", debias=True), load=lambda _: engine)
    for judge in (same, local):
        found = run_judge(judge, request_for())
        assert found.p_unsafe == pytest.approx(blackboard(0.8), abs=1e-4)
        assert found.prompt_version == own.prompt_version


def test_a_model_that_cannot_be_asked_about_nothing_fails_the_check(request_for: Make) -> None:
    def broken(scene: Scene) -> float:
        if biased(scene) != 0.8:
            return float("nan")
        return 0.01

    judge = LabelLogitsJudge(ScriptedVLM(p_unsafe=broken), debias=True)
    assert run_judge(judge, request_for()).failed is not None
