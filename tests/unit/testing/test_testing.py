from __future__ import annotations

import time
from uuid import uuid4

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import dispatch_custom_event
from langchain_core.runnables import RunnableLambda
from PIL import Image

from safecode_guard.errors import JudgeError, ModelError
from safecode_guard.judges.protocol import Judge, JudgeRequest
from safecode_guard.models.protocol import Engine, Sampling
from safecode_guard.testing import (
    ByteVocabulary,
    Delay,
    EventRecorder,
    Scene,
    ScriptedJudge,
    ScriptedVLM,
)
from safecode_guard.turns.images import CheckedImage
from safecode_guard.turns.turn import ImagePart, TextPart, Turn, TurnMessage
from safecode_guard.verdict import EVENT_NAME, Judgement, PolicyRef, Verdict

REFUSAL, HELP = "I can't help with that.", "Run along the edge."


def look(text: str = "run?", colour: str = "red") -> Turn:
    image = CheckedImage(Image.new("RGB", (6, 4), colour), colour * 8, "image/png", 0, 0)
    return Turn((TurnMessage("user", (ImagePart(0), TextPart(text))),), (image,))


def test_scripted_judge_goes_through_its_script() -> None:
    ready = Judgement(judge_id="other", prompt_version="9", label="safe", categories=("hate",))
    judge = ScriptedJudge([0.9, "undecided", ready, JudgeError("down"), 0.2])
    request = JudgeRequest.of_turn(look())
    assert judge.judge(request).p_unsafe == 0.9
    assert judge.judge(request).label == "undecided"
    assert judge.judge(request) is ready
    with pytest.raises(JudgeError, match="down"):
        judge.judge(request)
    assert [judge.judge(request).p_unsafe for _ in range(3)] == [0.2] * 3
    assert judge.requests == [request] * 7
    assert isinstance(judge, Judge)
    judge.close()
    assert judge.closed


async def test_scripted_judge_can_be_late_or_ask_the_request() -> None:
    request = JudgeRequest.of_turn(look("cliff"))
    late = ScriptedJudge(Delay(0.03, "unsafe"))
    started = time.monotonic()
    assert (await late.ajudge(request)).label == late.judge(request).label == "unsafe"
    assert time.monotonic() - started >= 0.06
    asking = ScriptedJudge(lambda request: 0.9 if "cliff" in request.scene.request else 0.1)
    assert asking.judge(request).p_unsafe == 0.9
    with pytest.raises(ValueError, match="no label"):
        ScriptedJudge("harmless").judge(request)  # type: ignore[arg-type]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_byte_vocabulary_loses_nothing_and_makes_no_special_tokens(text: str) -> None:
    vocabulary = ByteVocabulary(["the ", "é", "then"])
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert not vocabulary.special_ids & set(ids)
    assert all(token < vocabulary.size for token in ids)


def test_byte_vocabulary_prefers_the_longest_word() -> None:
    vocabulary = ByteVocabulary(["un"])
    assert len(vocabulary.encode("unsafe")) == 1
    assert len(vocabulary.encode("un safe")) == 3


def test_scripted_model_is_a_model_and_gives_the_likelier_reply() -> None:
    vlm = ScriptedVLM({REFUSAL: 0.0, HELP: 0.5})
    assert isinstance(vlm, Engine)
    assert vlm.generate([look(), look("hi")], Sampling()) == [HELP, HELP]
    branch = vlm.prefill(vlm.encode([look()]), Sampling())
    first = vlm.vocabulary.encode("I")[0]
    boosted = branch.logits[0].clone()
    boosted[first] += 1.0
    assert int(branch.logits[0].argmax()) == vlm.vocabulary.encode("R")[0]
    assert int(boosted.argmax()) == first


def test_steered_token_is_followed_to_the_end_of_its_reply() -> None:
    vlm = ScriptedVLM({REFUSAL: 0.0, HELP: 0.5})
    branch = vlm.prefill(vlm.encode([look()]), Sampling())
    written = vlm.vocabulary.encode("I")
    branch.step(torch.tensor(written))
    while (token := int(branch.logits[0].argmax())) not in vlm.vocabulary.eos_ids:
        written.append(token)
        branch.step(torch.tensor([token]))
    assert vlm.vocabulary.decode(written) == REFUSAL


def test_replies_can_depend_on_the_picture_and_are_cut_at_stops() -> None:
    def reply(scene: Scene) -> str:
        return HELP if scene.images[0].getpixel((0, 0)) == (255, 0, 0) else REFUSAL

    vlm = ScriptedVLM(reply)
    turns = [look(), look(colour="grey")]
    assert vlm.generate(turns, Sampling()) == [HELP, REFUSAL]
    assert vlm.generate(turns, Sampling(stop=(" along",))) == ["Run", REFUSAL]
    assert vlm.generate(turns, Sampling(max_tokens=3)) == ["Run", "I c"]


def test_extending_a_prefix_equals_prefilling_the_whole() -> None:
    vlm = ScriptedVLM({REFUSAL: 0.0, HELP: 0.5}, p_unsafe=0.8)
    prompts = vlm.encode([look("Is it? safe or unsafe."), look("and now something else?")])
    whole = vlm.prefill(prompts, Sampling())
    cut = vlm.prefill(prompts.cut([3, 5]), Sampling())
    fork = cut.fork()
    fork.extend([ids[n:] for ids, n in zip(prompts.ids, (3, 5), strict=True)])
    assert torch.equal(fork.logits, whole.logits)
    assert not torch.equal(cut.logits, whole.logits)
    kept = fork.select([1, 1, 0])
    assert kept is fork
    assert torch.equal(fork.logits, whole.logits[[1, 1, 0]])
    assert [call[0] for call in vlm.calls] == ["prefill", "prefill", "extend"]


def test_branch_warps_by_temperature_and_the_model_fails_on_demand() -> None:
    vlm = ScriptedVLM()
    branch = vlm.prefill(vlm.encode([look()]), Sampling(temperature=0.5))
    assert torch.equal(branch.warp(branch.logits, [0]), branch.logits / 0.5)
    with pytest.raises(ModelError, match="broken"):
        ScriptedVLM(error=ModelError("broken")).generate([look()], Sampling())


def test_event_recorder_keeps_events_and_finds_the_verdicts() -> None:
    verdict = Verdict(label="unsafe", action="guide", policy=PolicyRef(name="p", digest="d"))

    def work(text: str) -> str:
        dispatch_custom_event(EVENT_NAME, verdict.to_json())
        dispatch_custom_event("another", {"x": 1})
        return text

    recorder = EventRecorder()
    RunnableLambda(work).invoke("x", config={"callbacks": [recorder], "tags": ["t"]})
    assert [event.name for event in recorder.events] == [EVENT_NAME, "another"]
    assert recorder.events[0].tags == ("t",)
    assert recorder.verdicts == [verdict]


def test_event_recorder_keeps_what_it_is_told_directly() -> None:
    recorder, run_id = EventRecorder(), uuid4()
    recorder.on_custom_event("name", {"a": 1}, run_id=run_id, metadata={"m": 2})
    (event,) = recorder.events
    assert (event.data, event.run_id, event.metadata) == ({"a": 1}, run_id, {"m": 2})
