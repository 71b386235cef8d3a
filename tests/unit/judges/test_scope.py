"""The scope of a judge: the distance, and that nothing beyond it is called safe, whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from safecode_guard import ChatTransformers, Policy, SafeCoDeCheck
from safecode_guard.errors import JudgeError, PolicyError
from safecode_guard.judges.calibration import CalibratedJudge, Calibration
from safecode_guard.judges.combine import CascadeJudge, EnsembleJudge
from safecode_guard.judges.factory import make_judge
from safecode_guard.judges.failsafe import run_judge
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.protocol import JudgeRequest, OpenPrompt
from safecode_guard.judges.scope import Scope
from safecode_guard.models.protocol import Question, Sampling, StatedScores
from safecode_guard.pipeline.rules import label_of
from safecode_guard.policy import LocalJudgeConfig, SameModelJudgeConfig, Thresholds
from safecode_guard.taxonomy import STAGES, Stage
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from safecode_guard.verdict import Judgement
from tests.messages import ask
from tests.reference import judging
from tests.unit.judges.engines import TableEngine

Make = Callable[..., JudgeRequest]


def drawn(d: int, k: int, seed: int = 0) -> Scope:
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(d, d)))[0][:k]
    return Scope(
        centres=tuple(map(tuple, rng.normal(size=(2, d)).tolist())),
        directions=tuple(map(tuple, directions.tolist())),
        variances=tuple((rng.random(k) + 0.5).tolist()),
        rest=0.3,
        threshold=2.5,
        share=0.05,
    )


def around(engine: ScriptedVLM, request: JudgeRequest, *, threshold: float) -> Scope:
    """A scope whose one centre is as far from a request's state as there are directions."""
    state = np.array(LabelLogitsJudge(engine).states([request])[0])
    centre = state + np.eye(len(state))[0]
    return Scope(
        centres=(tuple(centre.tolist()),),
        directions=(tuple(np.eye(len(state))[0].tolist()),),
        variances=(1.0,),
        rest=1.0,
        threshold=threshold,
        share=0.05,
    )


@pytest.mark.parametrize(("d", "k"), [(1, 1), (5, 5), (6, 2), (9, 8)])
def test_the_distance_is_the_blackboards(d: int, k: int) -> None:
    scope = drawn(d, k)
    states = np.random.default_rng(1).normal(size=(7, d)).tolist()
    expected = [judging.unlikeness(scope, state) for state in states]
    assert scope.unlikeness(states) == pytest.approx(expected)
    assert scope.unlikeness([scope.centres[1]]) == [0.0]


@pytest.mark.parametrize(
    "state", [[1.0], [1.0] * 4, [float("nan"), 0.0, 0.0], [0.0, float("inf"), 0.0], []]
)
def test_a_state_that_does_not_fit_fails_the_check(state: list[float]) -> None:
    with pytest.raises(JudgeError, match="state"):
        drawn(3, 2).unlikeness([state])


def test_a_calibration_of_another_width_is_a_failed_check(request_for: Make) -> None:
    judge = LabelLogitsJudge(ScriptedVLM(p_unsafe=0.01), scope=drawn(3, 2))
    found = run_judge(judge, request_for())
    assert found.failed == "JudgeError: the judge's state does not fit its calibration"


@pytest.mark.parametrize(
    "changes",
    [
        {"centres": ((0.0,), (0.0, 1.0))}, {"centres": ()}, {"variances": (1.0,)},
        {"variances": (1.0, 0.0)}, {"rest": 0}, {"threshold": 0}, {"rest": float("nan")},
        {"directions": ((1.0, 0.0), (0.0, 1.0))}, {"share": 1.0}, {"x": 1},
    ],
)  # fmt: skip
def test_a_record_that_is_none_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Scope.model_validate(drawn(3, 2).model_dump() | changes)


def test_the_judge_says_how_unlike_a_scene_is(request_for: Make) -> None:
    engine = ScriptedVLM(p_unsafe=0.01)
    scope = around(engine, request_for(), threshold=4.0)
    found = LabelLogitsJudge(engine, scope=scope).judge(request_for())
    assert found.unlikeness == pytest.approx(0.25, abs=1e-4)
    assert not found.out_of_scope
    assert LabelLogitsJudge(engine).judge(request_for()).unlikeness is None


@pytest.mark.parametrize("stage", STAGES)
def test_it_says_something_only_of_the_stage_that_it_was_fitted_on(
    stage: Stage, request_for: Make
) -> None:
    engine = ScriptedVLM(p_unsafe=0.01)
    scope = around(engine, request_for(), threshold=4.0)
    found = LabelLogitsJudge(engine, scope=scope).judge(request_for(stage=stage))
    assert (found.unlikeness is None) == (stage != "input")
    own = scope.model_copy(update={"stage": stage})
    assert LabelLogitsJudge(engine, scope=own).judge(request_for(stage=stage)).unlikeness


def test_requests_of_several_stages_are_judged_in_one_batch(request_for: Make) -> None:
    engine = ScriptedVLM(p_unsafe=0.01)
    judge = LabelLogitsJudge(engine, scope=around(engine, request_for(), threshold=4.0))
    found = judge.judge_many([request_for(stage="output"), request_for()])
    assert [one.unlikeness is None for one in found] == [True, False]


def test_so_it_does_on_an_open_prompt(request_for: Make) -> None:
    engine = ScriptedVLM(p_unsafe=0.01)
    judge = LabelLogitsJudge(engine, scope=around(engine, request_for(), threshold=4.0))
    session = engine.open([request_for().scene.turn], Sampling())
    found = judge.judge(request_for(prompt=OpenPrompt(engine, session, 0)))
    assert found.unlikeness == pytest.approx(0.25, abs=1e-4)


def test_states_come_only_where_they_are_asked_for(request_for: Make) -> None:
    engine = ScriptedVLM()
    turn = request_for().scene.turn
    session = engine.open([turn], Sampling())
    question = turn.ask("Safe or unsafe.")
    plain = session.ask([Question(0, question, frozenset({1}))])[0]
    stated = session.ask([Question(0, question, frozenset({1}), with_state=True)])[0]
    assert plain == stated
    assert not isinstance(plain, StatedScores)
    assert isinstance(stated, StatedScores)


@pytest.mark.parametrize(
    ("p", "unlikeness", "label"),
    [
        (0.01, None, "safe"), (0.01, 0.0, "safe"), (0.01, 1.0, "safe"), (0.01, 1.01, "undecided"),
        (0.5, 9.0, "undecided"), (0.99, 9.0, "unsafe"), (0.99, None, "unsafe"),
    ],
)  # fmt: skip
def test_beyond_it_nothing_is_safe_and_what_is_unsafe_stays(
    p: float, unlikeness: float | None, label: str
) -> None:
    found = Judgement(judge_id="j", prompt_version="1", p_unsafe=p, unlikeness=unlikeness)
    assert label_of(found, Thresholds()) == label
    worded = found.model_copy(update={"p_unsafe": None, "label": "safe"})
    expected = "undecided" if found.out_of_scope else "safe"
    assert label_of(worded, Thresholds()) == expected


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("threshold", "label"), [(4.0, "safe"), (0.5, "undecided")])
def test_a_policys_calibration_brings_its_scope(
    tmp_path: Path, threshold: float, label: str, asynchronous: bool
) -> None:
    engine, path = ScriptedVLM(p_unsafe=0.01), tmp_path / "cal.json"
    plain = make_judge(SameModelJudgeConfig(), engine=engine)
    scope = around(engine, _seen(engine), threshold=threshold)
    path.write_text(_calibration(plain, scope).model_dump_json())
    policy = Policy.load({"judge": {"kind": "same_model", "calibration": str(path)}})
    check = SafeCoDeCheck(ChatTransformers.from_engine(engine), policy=policy)
    verdict = asyncio.run(check.acheck(ask())) if asynchronous else check.check(ask())
    assert (verdict.label, verdict.error) == (label, None)
    assert verdict.judge is not None
    assert verdict.judge.unlikeness == pytest.approx(1 / threshold, abs=1e-3)


def test_a_judge_that_cannot_tell_refuses_it(tmp_path: Path, request_for: Make) -> None:
    scripted, blind = ScriptedJudge(0.1), TableEngine()
    scope = drawn(3, 2)
    with pytest.raises(PolicyError, match="does not look at it"):
        CalibratedJudge(scripted, _calibration(scripted, scope))
    with pytest.raises(JudgeError, match="gives no states"):
        LabelLogitsJudge(blind, scope=scope)
    with pytest.raises(JudgeError, match="gives no states"):
        LabelLogitsJudge(blind).states([request_for()])
    path = tmp_path / "cal.json"
    plain = make_judge(LocalJudgeConfig(model="m"), load=lambda _: blind)
    path.write_text(_calibration(plain, scope).model_dump_json())
    config = LocalJudgeConfig(model="m", calibration=str(path))
    failed = run_judge(make_judge(config, load=lambda _: blind), request_for())
    assert failed.failed is not None


def test_a_cascade_asks_on_and_an_ensemble_counts_it_as_a_half(request_for: Make) -> None:
    def lost(p: float) -> ScriptedJudge:
        made = Judgement(judge_id="a", prompt_version="1", p_unsafe=p, unlikeness=3.0)
        return ScriptedJudge(made, id="a")

    sound = ScriptedJudge(0.02, id="b")
    request = request_for()
    assert CascadeJudge([lost(0.01), sound]).judge(request).p_unsafe == 0.02
    last = CascadeJudge([ScriptedJudge(0.5, id="b"), lost(0.01)]).judge(request)
    assert label_of(last, Thresholds()) == "undecided"
    ensemble = EnsembleJudge([lost(0.01), sound], rule="any").judge(request)
    assert label_of(ensemble, Thresholds()) == "undecided"
    averaged = EnsembleJudge([lost(0.01), sound], rule="mean").judge(request)
    assert averaged.p_unsafe == pytest.approx(0.26)
    alarmed = EnsembleJudge([lost(0.9), sound], rule="any").judge(request)
    assert label_of(alarmed, Thresholds()) == "unsafe"


def _seen(engine: ScriptedVLM) -> JudgeRequest:
    """What a judge is asked of the tests' own conversation."""
    seen: list[JudgeRequest] = []

    class Watching(LabelLogitsJudge):
        def judge_many(self, requests: list[JudgeRequest]) -> list[Judgement]:
            seen.extend(requests)
            return super().judge_many(requests)

    SafeCoDeCheck(judge=Watching(engine)).check(ask())
    return seen[0]


def _calibration(judge: Any, scope: Scope) -> Calibration:
    return Calibration(
        judge_id=judge.id,
        prompt_version=judge.prompt_version,
        temperature=1.0,
        bias=0.0,
        scope=scope,
    )
