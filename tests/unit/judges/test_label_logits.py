from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from safecode_guard.errors import JudgeError, JudgeTimeout, TemplateError
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.protocol import BatchJudge, JudgeRequest, PromptingJudge
from safecode_guard.models.families import Family
from safecode_guard.models.protocol import Sampling
from safecode_guard.testing import Scene, ScriptedVLM
from safecode_guard.turns.turn import TextPart, Turn, TurnMessage

Make = Callable[..., JudgeRequest]


class Prefix:
    def __init__(self, logits: torch.Tensor) -> None:
        self._logits = logits
        self.read = 0

    def logits(self) -> torch.Tensor:
        self.read += 1
        return self._logits


def test_probability_and_mass_are_the_models(request_for: Make) -> None:
    judgement = LabelLogitsJudge(ScriptedVLM(p_unsafe=0.7, label_mass=0.6)).judge(request_for())
    assert judgement.p_unsafe == pytest.approx(0.7, abs=1e-5)
    assert judgement.label_mass == pytest.approx(0.6, abs=1e-5)
    assert (judgement.label, judgement.parse_status) == (None, "logits")


def test_low_label_mass_is_undecided_with_its_probability(request_for: Make) -> None:
    vlm = ScriptedVLM(p_unsafe=0.02, label_mass=0.3)
    judgement = LabelLogitsJudge(vlm, min_label_mass=0.31).judge(request_for())
    assert (judgement.label, judgement.parse_status) == ("undecided", "low_mass")
    assert judgement.p_unsafe == pytest.approx(0.02, abs=1e-5)


def test_many_requests_are_one_prefill_in_order(request_for: Make) -> None:
    def by_text(scene: Scene) -> float:
        return 0.9 if "cliff" in scene.question else 0.2

    vlm = ScriptedVLM(p_unsafe=by_text)
    texts = ["a park", "a cliff", "a road"]
    found = LabelLogitsJudge(vlm).judge_many([request_for(text) for text in texts])
    assert [round(j.p_unsafe or 0, 3) for j in found] == [0.2, 0.9, 0.2]
    assert [call[:2] for call in vlm.calls] == [("prefill", 3)]


def test_prefix_is_used_instead_of_a_prefill(request_for: Make) -> None:
    vlm = ScriptedVLM(p_unsafe=0.2)
    judge = LabelLogitsJudge(vlm)
    other = ScriptedVLM(p_unsafe=0.8)
    prefix = Prefix(
        other.prefill(other.encode([judge.question(request_for())]), Sampling()).logits[0]
    )
    found = judge.judge_many([request_for(), request_for(prefix=prefix), request_for()])
    assert [round(j.p_unsafe or 0, 3) for j in found] == [0.2, 0.8, 0.2]
    assert prefix.read == 1
    assert [call[:2] for call in vlm.calls] == [("prefill", 2)]


def test_question_keeps_the_conversation_up_to_the_last_image(request_for: Make) -> None:
    judge = LabelLogitsJudge(ScriptedVLM())
    request = request_for("run?")
    question = judge.question(request)
    assert question.images == request.turn.images
    assert question.messages[-1].parts[0] == request.turn.messages[-1].parts[0]
    assert "<request>run?</request>" in question.messages[-1].text


def test_family_question_and_caption_are_asked(request_for: Make) -> None:
    asked: list[str] = []

    def reply(scene: Scene) -> str:
        asked.append(scene.question)
        return "A cliff."

    family = Family("f", judge_prompt="{query}|safe or unsafe", caption_prompt="What is it?")
    vlm = ScriptedVLM(reply, p_unsafe=0.9, family=family)
    judgement = LabelLogitsJudge(vlm, caption=True).judge(request_for("run?"))
    assert judgement.caption == "A cliff."
    assert set(asked) == {"What is it?"}


def test_caption_and_rationale_only_if_asked(request_for: Make) -> None:
    vlm = ScriptedVLM("Because.", p_unsafe=0.9)
    plain = LabelLogitsJudge(vlm).judge(request_for())
    assert (plain.caption, plain.rationale) == (None, None)
    assert len(vlm.calls) == 1
    full = LabelLogitsJudge(vlm, caption=True, rationale=True).judge(request_for())
    assert (full.caption, full.rationale) == ("Because.", "Because.")


def test_text_only_turn_has_no_caption() -> None:
    turn = Turn((TurnMessage("user", (TextPart("hi"),)),))
    judge = LabelLogitsJudge(ScriptedVLM("A cliff."), caption=True)
    assert judge.judge(JudgeRequest("input", turn)).caption is None


def test_time_that_runs_out_after_the_label_costs_the_caption_alone(request_for: Make) -> None:
    def slow(scene: Scene) -> float:
        time.sleep(0.05)
        return 0.9

    judge = LabelLogitsJudge(ScriptedVLM(p_unsafe=slow), caption=True)
    judgement = judge.judge(request_for(deadline=time.monotonic() + 0.02))
    assert judgement.p_unsafe == pytest.approx(0.9, abs=1e-5)
    assert judgement.caption is None


def test_passed_deadline_stops_before_the_model_is_asked(request_for: Make) -> None:
    vlm = ScriptedVLM()
    with pytest.raises(JudgeTimeout):
        LabelLogitsJudge(vlm).judge(request_for(deadline=time.monotonic() - 1))
    assert vlm.calls == []


def test_model_errors_become_judge_errors_with_their_cause(request_for: Make) -> None:
    cause = TemplateError("roles must alternate", hint="Merge the messages.")
    with pytest.raises(JudgeError, match="Merge the messages") as caught:
        LabelLogitsJudge(ScriptedVLM(error=cause)).judge(request_for())
    assert caught.value.__cause__ is cause


def test_options_that_change_the_judgement_change_its_version() -> None:
    vlm = ScriptedVLM()
    versions = {
        LabelLogitsJudge(vlm).prompt_version,
        LabelLogitsJudge(vlm, caption=True).prompt_version,
        LabelLogitsJudge(vlm, rationale=True).prompt_version,
        LabelLogitsJudge(vlm, min_label_mass=0.5).prompt_version,
    }
    assert len(versions) == 4


def test_it_is_a_batch_judge_and_continues_its_models_prompt() -> None:
    vlm = ScriptedVLM()
    judge = LabelLogitsJudge(vlm)
    assert isinstance(judge, BatchJudge)
    assert isinstance(judge, PromptingJudge)
    assert judge.model is vlm
