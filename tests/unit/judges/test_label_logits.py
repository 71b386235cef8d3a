from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from PIL import ImageOps

from safecode_guard.errors import JudgeError, JudgeTimeout, TemplateError
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.protocol import BatchJudge, JudgeRequest, OpenPrompt, judges_on
from safecode_guard.models.families import Family
from safecode_guard.models.protocol import Sampling
from safecode_guard.testing import Scene, ScriptedVLM
from safecode_guard.turns.scene import scene_of
from safecode_guard.turns.turn import TextPart, Turn, TurnMessage
from tests.unit.judges.engines import TableEngine

Make = Callable[..., JudgeRequest]


def found(judge: LabelLogitsJudge, requests: list[JudgeRequest]) -> list[float]:
    return [round(judgement.p_unsafe or 0, 3) for judgement in judge.judge_many(requests)]


def by_text(scene: Scene) -> float:
    return 0.9 if "cliff" in scene.question else 0.2


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
    vlm = ScriptedVLM(p_unsafe=by_text)
    texts = ["a park", "a cliff", "a road"]
    assert found(LabelLogitsJudge(vlm), [request_for(text) for text in texts]) == [0.2, 0.9, 0.2]
    assert [call[:2] for call in vlm.calls] == [("prefill", 3)]


def test_open_prompt_is_asked_instead_of_one_of_its_own(request_for: Make) -> None:
    vlm = ScriptedVLM(p_unsafe=by_text)
    requests = [request_for(text) for text in ("a park", "a cliff")]
    session = vlm.open([request.scene.turn for request in requests], Sampling())
    shared = [
        request_for(text, prompt=OpenPrompt(vlm, session, i))
        for i, text in enumerate(("a park", "a cliff"))
    ]
    assert found(LabelLogitsJudge(vlm), shared) == [0.2, 0.9]
    assert [call[:2] for call in vlm.calls] == [("prefill", 2), ("extend", 2)]


def test_each_session_is_asked_once_and_only_own_ones_are_closed(request_for: Make) -> None:
    engine = TableEngine()
    turn = request_for().scene.turn
    first, second = engine.open([turn, turn], Sampling()), engine.open([turn], Sampling())
    prompts = [
        OpenPrompt(engine, first, 1),
        None,
        OpenPrompt(engine, second, 0),
        OpenPrompt(TableEngine(), first, 0),
        OpenPrompt(engine, first, 0),
    ]
    requests = [request_for(f"text {i}", prompt=prompt) for i, prompt in enumerate(prompts)]
    assert len(LabelLogitsJudge(engine).judge_many(requests)) == 5
    own = engine.sessions[2]
    assert len(engine.sessions) == 3
    asked = [[(q.index, text_of(q.turn)) for q in s.questions] for s in engine.sessions]
    assert asked == [
        [(1, "text 0"), (0, "text 4")],
        [(0, "text 2")],
        [(0, "text 1"), (1, "text 3")],
    ]
    assert [session.asked for session in engine.sessions] == [1, 1, 1]
    assert [session.closed for session in engine.sessions] == [0, 0, 1]
    assert [question.turn for question in own.questions] == own.turns


def text_of(turn: Turn) -> str:
    text = turn.messages[-1].text
    return text[text.index("<request>") + 9 : text.index("</request>")]


def test_turns_that_do_not_fit_together_are_asked_apart(request_for: Make) -> None:
    engine = TableEngine(key=lambda turn: str(len(turn.images)))
    words = JudgeRequest.of_turn(Turn((TurnMessage("user", (TextPart("hi"),)),)))
    LabelLogitsJudge(engine).judge_many([request_for("a"), words, request_for("b")])
    assert [[text_of(turn) for turn in s.turns] for s in engine.sessions] == [["a", "b"], ["hi"]]
    assert [session.closed for session in engine.sessions] == [1, 1]


def test_session_is_closed_when_asking_fails(request_for: Make) -> None:
    engine = TableEngine(error=TemplateError("roles must alternate"))
    with pytest.raises(JudgeError):
        LabelLogitsJudge(engine).judge(request_for())
    assert [session.closed for session in engine.sessions] == [1]


def test_only_the_labels_tokens_are_asked_for(request_for: Make) -> None:
    engine = TableEngine()
    LabelLogitsJudge(engine).judge(request_for())
    vocabulary = engine.vocabulary
    (question,) = engine.sessions[0].questions
    assert {vocabulary.encode("safe")[0], vocabulary.encode("unsafe")[0]} <= question.tokens
    assert len(question.tokens) < 10


@pytest.mark.parametrize("score", [math.nan, math.inf, None])
def test_broken_or_missing_scores_are_a_judge_error(score: float | None, request_for: Make) -> None:
    with pytest.raises(JudgeError):
        LabelLogitsJudge(TableEngine(score=score)).judge(request_for())


def test_question_shows_the_scene_and_asks_about_it(request_for: Make) -> None:
    request = request_for("run?")
    question = LabelLogitsJudge(ScriptedVLM()).question(request)
    assert question.images == request.scene.images
    assert question.messages[-1].parts[0] == request.scene.turn.messages[-1].parts[0]
    assert "<request>run?</request>" in question.messages[-1].text


def test_conversation_outside_the_scene_is_not_shown(request_for: Make) -> None:
    seen: list[str] = []

    def note(scene: Scene) -> float:
        seen.append(scene.prompt)
        return 0.9

    messages = (
        TurnMessage("system", (TextPart("Be kind."),)),
        TurnMessage("user", (TextPart("What do you see on this picture?"),)),
        TurnMessage("assistant", (TextPart("Decision: safe"),)),
        TurnMessage("user", (TextPart("How do I run faster along there?"),)),
    )
    LabelLogitsJudge(ScriptedVLM(p_unsafe=note)).judge(JudgeRequest.of_turn(Turn(messages)))
    assert "Be kind." in seen[0]
    assert "Decision: safe" not in seen[0]


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


def test_captions_come_back_in_order_and_sessions_are_closed(request_for: Make) -> None:
    engine = TableEngine(key=lambda turn: turn.images[0].sha256, answer=lambda turn: turn.key())
    requests = [request_for(text) for text in ("a", "b", "c")]
    judge = LabelLogitsJudge(engine, rationale=True)
    rationales = [judgement.rationale for judgement in judge.judge_many(requests)]
    asked = [request.scene.turn.ask(judge.prompt.rationale_text(request)) for request in requests]
    assert rationales == [turn.key() for turn in asked]
    assert all(session.closed == 1 for session in engine.sessions)


def test_text_only_turn_has_no_caption() -> None:
    turn = Turn((TurnMessage("user", (TextPart("hi"),)),))
    judge = LabelLogitsJudge(ScriptedVLM("A cliff."), caption=True)
    assert judge.judge(JudgeRequest("input", scene_of(turn))).caption is None


@pytest.mark.parametrize("late_at", ["label", "caption"])
def test_time_that_runs_out_after_the_label_costs_the_caption_alone(
    late_at: str, request_for: Make
) -> None:
    def slow(scene: Scene) -> float:
        time.sleep(0.4 if late_at == "label" else 0)
        return 0.9

    def write(scene: Scene) -> str:
        time.sleep(0.4 if late_at == "caption" else 0)
        return "A long sentence about a cliff."

    judge = LabelLogitsJudge(ScriptedVLM(write, p_unsafe=slow), caption=True)
    judgement = judge.judge(request_for(deadline=time.monotonic() + 0.3))
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


def test_failure_to_write_is_a_judge_error(request_for: Make) -> None:
    engine = TableEngine(answer=lambda turn: TemplateError("no"))
    with pytest.raises(JudgeError):
        LabelLogitsJudge(engine, caption=True).judge(request_for())


@pytest.mark.parametrize("lacking", [{"vocabulary": None}, {"label_scores": False}])
def test_engine_that_keeps_its_scores_is_refused_at_once(lacking: dict[str, Any]) -> None:
    with pytest.raises(JudgeError, match="ChatJudge"):
        LabelLogitsJudge(TableEngine(**lacking))


def test_options_that_change_the_judgement_change_its_version() -> None:
    vlm = ScriptedVLM()
    versions = {
        LabelLogitsJudge(vlm).prompt_version,
        LabelLogitsJudge(vlm, caption=True).prompt_version,
        LabelLogitsJudge(vlm, rationale=True).prompt_version,
        LabelLogitsJudge(vlm, min_label_mass=0.5).prompt_version,
    }
    assert len(versions) == 4


@pytest.mark.parametrize("logits", [True, False])
def test_only_a_model_in_this_process_is_waited_for_past_a_deadline(logits: bool) -> None:
    judge = LabelLogitsJudge(TableEngine(logits=logits))
    assert judge.abilities.honours_deadline == logits


def test_it_is_a_batch_judge_on_its_engine() -> None:
    vlm = ScriptedVLM()
    judge = LabelLogitsJudge(vlm)
    assert isinstance(judge, BatchJudge)
    assert judges_on(judge, vlm)
    assert not judges_on(judge, ScriptedVLM())


def framed(request: JudgeRequest) -> JudgeRequest:
    image = request.scene.images[0]
    pixels = ImageOps.expand(image.pixels, 3, (1, 2, 3))
    scene = replace(request.scene, images=(image.with_pixels(pixels, view="framed"),))
    return replace(request, scene=scene)


@pytest.mark.parametrize("trim", [True, False])
def test_what_stands_inside_a_border_is_judged(request_for: Make, trim: bool) -> None:
    request = framed(request_for("a cliff"))
    judge = LabelLogitsJudge(ScriptedVLM(), trim_borders=trim)
    shown = judge.question(request).images[0].pixels
    whole = request.scene.images[0].pixels
    assert (shown.size == whole.size) is not trim
    assert judge.prompt_version.endswith("untrimmed") is not trim


@pytest.mark.parametrize("trim", [True, False])
def test_a_trimmed_picture_is_asked_about_on_a_prompt_of_its_own(
    request_for: Make, monkeypatch: pytest.MonkeyPatch, trim: bool
) -> None:
    asked = []
    vlm = ScriptedVLM(p_unsafe=by_text)
    request = framed(request_for("a cliff"))
    session = vlm.open([request.scene.turn], Sampling())
    own = session.ask
    monkeypatch.setattr(session, "ask", lambda rows: asked.extend(rows) or own(rows))
    shared = replace(request, prompt=OpenPrompt(vlm, session, 0))
    assert found(LabelLogitsJudge(vlm, trim_borders=trim), [shared]) == [0.9]
    assert len(asked) == (0 if trim else 1)
