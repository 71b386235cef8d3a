from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from safecode_guard.errors import JudgeError, PolicyError
from safecode_guard.judges.calibration import CalibratedJudge, Calibration
from safecode_guard.judges.factory import make_judge
from safecode_guard.judges.protocol import Judge, JudgeRequest, judges_on
from safecode_guard.pipeline.factory import make_examiner
from safecode_guard.policy import Policy, SameModelJudgeConfig
from safecode_guard.testing import ScriptedJudge, ScriptedVLM

Make = Callable[..., JudgeRequest]


def of(judge: Judge, **changes: Any) -> Calibration:
    values = {
        "judge_id": judge.id,
        "prompt_version": judge.prompt_version,
        "temperature": 2.0,
        "bias": 0.5,
    }
    return Calibration(**{**values, **changes})


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.05, 20), st.floats(-5, 5))
def test_a_calibration_keeps_the_order_of_scenes(
    p: float, q: float, temperature: float, bias: float
) -> None:
    made = Calibration(judge_id="j", prompt_version="1", temperature=temperature, bias=bias)
    low, high = sorted((p, q))
    assert 0 <= made.applied(low) <= made.applied(high) <= 1


def test_neutral_values_change_nothing() -> None:
    made = Calibration(judge_id="j", prompt_version="1", temperature=1.0, bias=0.0)
    assert [made.applied(p) for p in (0.01, 0.5, 0.97)] == pytest.approx([0.01, 0.5, 0.97])


def test_probabilities_are_calibrated_and_the_rest_is_the_judges_own(request_for: Make) -> None:
    judge = ScriptedJudge(0.9)
    made = of(judge)
    calibrated = CalibratedJudge(judge, made)
    assert isinstance(calibrated, Judge)
    found = calibrated.judge(request_for())
    assert found.p_unsafe == pytest.approx(made.applied(0.9))
    assert (found.calibration_id, found.judge_id) == (made.id, calibrated.id)
    assert made.id in calibrated.id


def test_a_label_alone_and_a_failed_check_stay_what_they_are(request_for: Make) -> None:
    judge = ScriptedJudge(["undecided", JudgeError("down")])
    calibrated = CalibratedJudge(judge, of(judge))
    assert calibrated.judge(request_for()).label == "undecided"
    with pytest.raises(JudgeError, match="down"):
        calibrated.judge(request_for())


async def test_the_async_door_calibrates_too(request_for: Make) -> None:
    judge = ScriptedJudge(0.9)
    calibrated = CalibratedJudge(judge, of(judge))
    found = await calibrated.ajudge(request_for())
    assert found.p_unsafe == pytest.approx(calibrated.calibration.applied(0.9))


def test_it_is_refused_for_another_judge_and_another_question(request_for: Make) -> None:
    judge = ScriptedJudge(0.9)
    with pytest.raises(PolicyError, match="not of"):
        CalibratedJudge(judge, of(judge, judge_id="other"))
    asked_otherwise = CalibratedJudge(judge, of(judge, prompt_version="other"))
    with pytest.raises(JudgeError, match="calibrated for another"):
        asked_otherwise.judge(request_for())


def test_a_judge_on_the_guarded_model_keeps_its_open_prompt(tmp_path: Path) -> None:
    engine = ScriptedVLM(p_unsafe=0.8)
    plain = make_judge(SameModelJudgeConfig(), engine=engine)
    path = tmp_path / "cal.json"
    path.write_text(of(plain).model_dump_json())
    judge = make_judge(SameModelJudgeConfig(calibration=str(path)), engine=engine)
    assert judges_on(judge, engine)
    assert judge.abilities == plain.abilities


def test_what_the_file_says_is_part_of_the_policys_digest(tmp_path: Path) -> None:
    engine, path = ScriptedVLM(p_unsafe=0.8), tmp_path / "cal.json"
    plain = make_judge(SameModelJudgeConfig(), engine=engine)
    policy = Policy.load({"judge": {"kind": "same_model", "calibration": str(path)}})
    digests = set()
    for temperature in (1.0, 2.0):
        path.write_text(of(plain, temperature=temperature).model_dump_json())
        digests.add(make_examiner(policy, engine=engine).digest)
    assert len(digests) == 2


def test_so_is_what_the_file_of_a_member_says(tmp_path: Path) -> None:
    engine, path = ScriptedVLM(p_unsafe=0.8), tmp_path / "cal.json"
    plain = make_judge(SameModelJudgeConfig(), engine=engine)
    members = [{"kind": "same_model", "calibration": str(path)}, {"kind": "same_model"}]
    policy = Policy.load({"judge": {"kind": "ensemble", "members": members}})
    digests = set()
    for temperature in (1.0, 2.0):
        path.write_text(of(plain, temperature=temperature).model_dump_json())
        digests.add(make_examiner(policy, engine=engine).digest)
    assert len(digests) == 2


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"judge_id": "j"}', "nonsense"])
def test_a_file_that_is_none_is_told(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "cal.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PolicyError, match="calibration"):
        Calibration.read(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"bias": 1e300},
        {"bias": -26},
        {"temperature": 1e-320},
        {"temperature": 0},
        {"temperature": float("nan")},
        {"safe": 0.8, "unsafe": 0.2},
        {"x": 1},
    ],
)
def test_values_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        of(ScriptedJudge(0.5), **changes)
