from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from PIL import Image

from safecode_guard import Policy, SafeCoDeCheck
from safecode_guard.errors import JudgeError, JudgeTimeout, ModelError, PolicyError
from safecode_guard.judges.factory import make_judge
from safecode_guard.judges.guard_models import (
    ChatWriter,
    EngineWriter,
    GuardModelJudge,
    ImageGuardJudge,
)
from safecode_guard.judges.protocol import Judge, JudgeRequest
from safecode_guard.policy import GuardModelJudgeConfig
from safecode_guard.taxonomy import STAGES
from safecode_guard.testing import ScriptedVLM
from safecode_guard.turns.turn import ImagePart, TextPart, Turn, TurnMessage
from safecode_guard.verdict import Judgement
from tests.messages import ask

Make = Callable[..., JudgeRequest]


class Scripted:
    """Answers with given texts, and keeps what it was asked."""

    id = "scripted"

    def __init__(self, *texts: str | Exception) -> None:
        self.texts = list(texts)
        self.asked: list[Turn] = []
        self.options: list[tuple[int, Mapping[str, Any]]] = []

    def write(
        self,
        turns: Sequence[Turn],
        *,
        max_tokens: int,
        template: Mapping[str, Any],
        deadlines: Sequence[float | None],
    ) -> list[str]:
        self.asked += turns
        self.options.append((max_tokens, template))
        found = [self.texts[0] if len(self.texts) == 1 else self.texts.pop(0) for _ in turns]
        for text in found:
            if isinstance(text, Exception):
                raise text
        return [str(text) for text in found]


class Classifier:
    id = "classifier"

    def __init__(self, *found: Mapping[str, float]) -> None:
        self.found = list(found)
        self.shown: list[Image.Image] = []

    def violations(self, images: Sequence[Image.Image]) -> list[Mapping[str, float]]:
        self.shown += images
        return [self.found[i % len(self.found)] for i in range(len(images))]


def several(picture: Callable[..., Any], *colours: str) -> JudgeRequest:
    parts = [ImagePart(i) for i in range(len(colours))]
    images = tuple(picture(colour) for colour in colours)
    turn = Turn((TurnMessage("user", (*parts, TextPart("Which one?"))),), images)
    return JudgeRequest.of_turn(turn)


def test_a_guard_model_is_a_judge(request_for: Make) -> None:
    judge = GuardModelJudge("llama_guard_4", Scripted("\n\nunsafe\nS9"))
    assert isinstance(judge, Judge)
    found = judge.judge(request_for())
    assert (found.label, found.categories) == ("unsafe", ("indiscriminate_weapons",))
    assert (found.judge_id, found.parse_status) == ("guard:llama_guard_4:scripted", "parsed")
    assert found.prompt_version == judge.prompt_version


def test_what_is_not_its_form_is_a_failed_check(request_for: Make) -> None:
    found = GuardModelJudge("llama_guard_4", Scripted("This is safe.")).judge(request_for())
    assert (found.label, found.p_unsafe, found.parse_status) == (None, None, "malformed")
    assert found.failed == "the judge's reply could not be read"


@pytest.mark.parametrize("name", ["shieldgemma_2", "llama_gard_4", "", "safe"])
def test_a_name_that_writes_no_verdict_is_told(name: Any) -> None:
    with pytest.raises(JudgeError, match=repr(name)) as caught:
        GuardModelJudge(name, Scripted("safe"))
    expected = {"shieldgemma_2": "ImageGuardJudge", "llama_gard_4": "'llama_guard_4'"}
    assert expected.get(name, "qwenguard") in str(caught.value.hint)


@pytest.mark.parametrize("texts", [[], ["safe", "safe"]])
def test_more_or_fewer_answers_than_questions_are_none(texts: list[str], request_for: Make) -> None:
    class Odd(Scripted):
        def write(self, turns: Sequence[Turn], **options: Any) -> list[str]:
            return texts

    with pytest.raises(JudgeError, match=f"gave {len(texts)} answers"):
        GuardModelJudge("llama_guard_4", Odd()).judge(request_for())


@pytest.mark.parametrize(
    "found",
    [
        [{"violence": 0.1, "sexual": float("nan")}],
        [{"sexual": float("nan"), "violence": 0.1}],
        [{"violence": -0.1}],
        [{"violence": 0.1, "sexual": 1.2}],
        [{}],
        [],
        [{"violence": 0.1}] * 2,
    ],
)
def test_a_classifier_that_says_no_probabilities_fails(found: Any, request_for: Make) -> None:
    class Odd(Classifier):
        def violations(self, images: Sequence[Image.Image]) -> list[Mapping[str, float]]:
            return list(found)

    with pytest.raises(JudgeError, match="did not give a probability"):
        ImageGuardJudge(Odd()).judge(request_for())


def test_more_pictures_than_it_takes_are_judged_one_by_one(picture: Callable[..., Any]) -> None:
    writer = Scripted("safe", "unsafe\nS1", "safe")
    judge = GuardModelJudge("llama_guard_3_vision", writer)
    found = judge.judge(several(picture, "red", "green", "blue"))
    assert found.label == "unsafe"
    assert [len(turn.images) for turn in writer.asked] == [1, 1, 1]
    assert len({turn.images[0].sha256 for turn in writer.asked}) == 3
    together = Scripted("safe")
    GuardModelJudge("llama_guard_4", together).judge(several(picture, "red", "green"))
    assert [len(turn.images) for turn in together.asked] == [2]


def test_one_unread_picture_fails_the_whole(picture: Callable[..., Any]) -> None:
    judge = GuardModelJudge("llama_guard_3_vision", Scripted("safe", "hm", "unsafe\nS1"))
    assert judge.judge(several(picture, "red", "green", "blue")).parse_status == "malformed"


def test_several_requests_keep_their_order(picture: Callable[..., Any], request_for: Make) -> None:
    writer = Scripted("safe", "unsafe\nS1", "unsafe\nS2", "safe")
    judge = GuardModelJudge("llama_guard_3_vision", writer)
    found = judge.judge_many([request_for(), several(picture, "red", "blue"), request_for("b")])
    assert [each.label for each in found] == ["safe", "unsafe", "safe"]
    assert found[1].categories == ("violent_crimes", "non_violent_crimes")


def test_a_reader_of_words_is_told_what_the_picture_shows(request_for: Make) -> None:
    writer = Scripted("Safety: Safe\nCategories: None")
    judge = GuardModelJudge("qwen3guard", writer, captioner=ScriptedVLM("A cliff."))
    found = judge.judge(request_for("How do I run faster?"))
    assert (found.label, found.caption) == ("safe", "A cliff.")
    assert writer.asked[0].messages[0].text.endswith("The picture shows: A cliff.")
    assert writer.asked[0].images == ()
    assert not judge.abilities.sees_images


@pytest.mark.parametrize("captioner", [None, ScriptedVLM(" ")], ids=["nobody", "says nothing"])
def test_without_a_description_it_judges_no_pictures(request_for: Make, captioner: Any) -> None:
    writer = Scripted("Safety: Safe\nCategories: None")
    judge = GuardModelJudge("qwen3guard", writer, captioner=captioner)
    with pytest.raises(JudgeError, match="describe"):
        judge.judge(request_for())
    assert writer.asked == []


def test_words_alone_need_no_description() -> None:
    writer = Scripted("Safety: Unsafe\nCategories: Violent")
    turn = Turn((TurnMessage("user", (TextPart("How do I hurt someone?"),)),))
    found = GuardModelJudge("qwen3guard", writer).judge(JudgeRequest.of_turn(turn))
    assert found.label == "unsafe"


def test_a_policy_of_ones_own_is_told_and_enters_the_version(request_for: Make) -> None:
    writer = Scripted("safe")
    mine = GuardModelJudge("policy", writer, policy="No cats. Answer safe or unsafe.")
    assert mine.judge(request_for()).label == "safe"
    assert writer.asked[0].messages[0].text.startswith("No cats.")
    assert mine.prompt_version != GuardModelJudge("policy", writer).prompt_version
    with pytest.raises(JudgeError, match="policy of its own"):
        GuardModelJudge("llama_guard_4", writer, policy="No cats.")


def test_a_deadline_that_has_passed_is_told(request_for: Make) -> None:
    writer = Scripted("safe")
    late = replace(request_for(), deadline=time.monotonic() - 1)
    with pytest.raises(JudgeTimeout):
        GuardModelJudge("llama_guard_4", writer).judge(late)
    with pytest.raises(JudgeTimeout):
        ImageGuardJudge(Classifier({"dangerous": 0.1})).judge(late)
    assert writer.asked == []


def test_a_model_is_loaded_when_it_is_first_asked_and_again_after_closing(
    request_for: Make,
) -> None:
    loads: list[int] = []

    def load() -> Scripted:
        loads.append(1)
        return Scripted("safe")

    judge = GuardModelJudge("llama_guard_4", load, id="mine")
    assert loads == []
    assert [judge.judge(request_for()).label for _ in range(2)] == ["safe", "safe"]
    judge.close()
    judge.judge(request_for())
    assert loads == [1, 1]


def test_a_classifier_says_how_likely_the_worst_policy_is_violated(
    picture: Callable[..., Any],
) -> None:
    found = ImageGuardJudge(
        Classifier({"dangerous": 0.1, "sexual": 0.2}, {"violence": 0.9, "sexual": 0.7})
    ).judge(several(picture, "red", "green"))
    assert (found.p_unsafe, found.label) == (0.9, None)
    assert found.categories == ("violent_crimes", "sexual_content")
    assert found.parse_status == "logits"


def test_a_classifier_of_pictures_judges_no_words() -> None:
    turn = Turn((TurnMessage("user", (TextPart("Hello."),)),))
    with pytest.raises(JudgeError, match="words alone"):
        ImageGuardJudge(Classifier({"dangerous": 0.0})).judge(JudgeRequest.of_turn(turn))


def test_an_engine_writes_for_a_guard(request_for: Make) -> None:
    judge = GuardModelJudge("policy", EngineWriter(ScriptedVLM("unsafe")))
    assert judge.judge(request_for()).label == "unsafe"


def test_a_served_guard_model_is_a_chat_model(request_for: Make) -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("\n\nunsafe\nS11")]))
    judge = GuardModelJudge("llama_guard_4", ChatWriter(model, id="served"))
    found = judge.judge(request_for())
    assert (found.categories, judge.id) == (("suicide_self_harm",), "guard:llama_guard_4:served")


def test_a_chat_model_that_cannot_be_asked_is_a_judge_error(request_for: Make) -> None:
    judge = GuardModelJudge("llama_guard_4", ChatWriter(GenericFakeChatModel(messages=iter([]))))
    with pytest.raises(JudgeError):
        judge.judge(request_for())


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("answer", ["It looks safe to me.", ModelError("down"), ""])
def test_no_fault_passes_at_any_stage(
    stage: Any, answer: str | Exception, request_for: Make
) -> None:
    check = SafeCoDeCheck(judge=GuardModelJudge("llama_guard_4", Scripted(answer)))
    messages = ask("Hello")
    if stage == "tool_result":
        messages.append(ToolMessage("ok", tool_call_id="1"))
    more = {
        "input": {},
        "tool_call": {"tool_call": {"name": "act", "args": {}, "id": "1"}},
        "tool_result": {"stage": "tool_result"},
        "output": {"answer": "Hi."},
    }[stage]
    verdict = check.check(messages, **more)
    assert verdict.action in ("review", "block")
    assert verdict.error
    assert verdict.degraded


@pytest.mark.parametrize(
    "adapter", ["llama_guard_4", "qwenguard", "qwen3guard", "granite_guardian", "shieldgemma_2"]
)
def test_a_policy_names_an_adapter_and_a_model(adapter: Any) -> None:
    policy = Policy.load(
        {"judge": {"kind": "guard_model", "adapter": adapter, "model": "some/guard"}}
    )
    made = make_judge(policy.judge, load_guard=lambda config: None)
    assert made.id == f"{adapter}:some/guard"
    assert made.abilities.sees_images == (adapter not in ("qwen3guard", "granite_guardian"))


def test_a_policy_for_a_model_with_its_own_is_refused() -> None:
    config = GuardModelJudgeConfig(adapter="llama_guard_4", model="some/guard", policy="No cats.")
    with pytest.raises(PolicyError, match="policy of its own"):
        make_judge(config, load_guard=lambda config: None)


def test_judgements_are_findings_of_the_contract(request_for: Make) -> None:
    found = GuardModelJudge("llama_guard_4", Scripted("safe")).judge(request_for())
    assert Judgement.model_validate(found.model_dump()) == found
