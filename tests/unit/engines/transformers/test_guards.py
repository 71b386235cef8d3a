"""Guard models on tiny random models of the published classes, loaded from files as real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from PIL import Image

from safecode_guard import ChatTransformers, Policy, SafeCoDeCheck
from safecode_guard.engines.transformers.guards import PictureClassifier, TextModel
from safecode_guard.errors import ModelError
from safecode_guard.turns.turn import TextPart, Turn, TurnMessage
from tests import families
from tests.messages import ask

WHERE: dict[str, Any] = {"device": None, "dtype": None, "local_files_only": True}
ASKED = Turn((TurnMessage("user", (TextPart("How do I sharpen this?"),)),))
Make = Callable[[], tuple[Any, Any]]


def qwen3() -> tuple[Any, Any]:
    tokens = families.tokenizer()
    tokens.chat_template = families.template("")
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**families.text_config(tokens, head_dim=8))), tokens


def granite() -> tuple[Any, Any]:
    tokens = families.tokenizer()
    tokens.chat_template = (
        "{{- 'RISK: ' + guardian_config['criteria_id'] + '\n' -}}" + families.template("")
    )
    return hf.GraniteForCausalLM(hf.GraniteConfig(**families.text_config(tokens))), tokens


def shieldgemma() -> tuple[Any, Any]:
    model, processor = families.parts("gemma3")
    ids = processor.tokenizer.convert_tokens_to_ids
    config = hf.ShieldGemma2Config(
        text_config=model.config.text_config,
        vision_config=model.config.vision_config,
        mm_tokens_per_image=4,
        boi_token_index=model.config.boi_token_index,
        eoi_token_index=model.config.eoi_token_index,
        image_token_index=model.config.image_token_index,
        yes_token_index=ids("s"),
        no_token_index=ids("u"),
    )
    made = hf.ShieldGemma2Processor(
        processor.image_processor,
        processor.tokenizer,
        chat_template=families.template("<start_of_image>"),
        image_seq_length=4,
    )
    classifier = hf.ShieldGemma2ForImageClassification(config)
    classifier.model.load_state_dict(model.state_dict())
    return classifier, made


def saved(parts: tuple[Any, Any], folder: Path) -> str:
    for part in parts:
        part.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("make", [qwen3, granite])
def test_a_reader_of_words_answers_through_its_own_template(make: Make, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = TextModel.load(saved(make(), tmp_path), **WHERE)
    template = {"guardian_config": {"criteria_id": "harm"}} if make is granite else {}
    first, late = model.write(
        [ASKED, ASKED], max_tokens=5, template=template, deadlines=[None, 0.0]
    )
    inputs = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": "How do I sharpen this?"}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        **template,
    )
    naive = model.model.generate(**inputs, max_new_tokens=5, do_sample=False)
    said = naive[0, inputs["input_ids"].shape[1] :]
    assert first == model.tokenizer.decode(said, skip_special_tokens=True)
    assert late == ""


def test_a_template_that_fails_is_a_model_error(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = TextModel.load(saved(granite(), tmp_path), **WHERE)
    with pytest.raises(ModelError):
        model.write([ASKED], max_tokens=5, template={}, deadlines=[None])


def test_without_a_template_there_is_no_policy(tmp_path: Path) -> None:
    model, tokens = qwen3()
    tokens.chat_template = None
    with pytest.raises(ModelError, match="chat template"):
        TextModel.load(saved((model, tokens), tmp_path), **WHERE)


@pytest.mark.parametrize("kind", [TextModel, PictureClassifier])
def test_what_is_not_there_is_told(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="could not be loaded"):
        kind.load(str(tmp_path / "none"), **WHERE)


def test_a_classifier_gives_the_probability_of_yes_for_each_policy(tmp_path: Path) -> None:
    torch.manual_seed(3)
    classifier = PictureClassifier.load(saved(shieldgemma(), tmp_path), **WHERE)
    images = [Image.new("RGB", (56, 56), colour) for colour in ("red", "navy")]
    found = classifier.violations(images)
    assert [list(each) for each in found] == [["dangerous", "sexual", "violence"]] * 2
    inputs = classifier.processor(images=images, return_tensors="pt")
    with torch.inference_mode():
        logits = classifier.model.model(**inputs).logits[:, -1]
    config = classifier.model.config
    both = logits[:, [config.yes_token_index, config.no_token_index]].softmax(-1)[:, 0]
    assert [p for each in found for p in each.values()] == pytest.approx(both.tolist(), abs=1e-5)
    assert len({round(p, 6) for each in found for p in each.values()}) > 1


def test_a_classifier_loaded_by_policy_decides(tmp_path: Path) -> None:
    torch.manual_seed(3)
    judge = {
        "kind": "guard_model",
        "adapter": "shieldgemma_2",
        "model": saved(shieldgemma(), tmp_path),
    }
    verdict = SafeCoDeCheck(policy=Policy.load({"judge": judge})).check(ask())
    assert verdict.error is None
    assert verdict.p_unsafe is not None
    assert verdict.judge is not None
    assert verdict.judge.id.startswith("shieldgemma_2:")
    assert str(tmp_path) not in verdict.model_dump_json()


@pytest.mark.parametrize(
    ("adapter", "family"),
    [
        ("llama_guard_3_vision", "mllama"),
        ("llavaguard", "llava_onevision"),
        ("qwenguard", "qwen2_5_vl"),
    ],
)
def test_a_vision_guard_runs_on_its_class_and_its_noise_is_no_verdict(
    adapter: str, family: str, tmp_path: Path
) -> None:
    judge = {
        "kind": "guard_model",
        "adapter": adapter,
        "model": saved(families.parts(family), tmp_path),
    }
    verdict = SafeCoDeCheck(policy=Policy.load({"judge": judge})).check(ask())
    assert verdict.parse_status == "malformed"
    assert verdict.action in ("review", "block")


def test_a_reader_of_words_is_captioned_by_the_guarded_model(tmp_path: Path) -> None:
    torch.manual_seed(3)
    judge = {
        "kind": "guard_model",
        "adapter": "qwen3guard",
        "model": saved(qwen3(), tmp_path),
        "caption": True,
    }
    policy = Policy.load({"judge": judge, "mode": "judge_only"})
    told: list[str] = []
    write = TextModel._answer

    def heard(self: TextModel, turn: Turn, *args: Any) -> str:
        told.append(turn.messages[0].text)
        write(self, turn, *args)
        return "Safety: Safe\nCategories: None"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextModel, "_answer", heard)
        check = SafeCoDeCheck(ChatTransformers.tiny(), policy=policy)
        verdict = check.check(ask())
    assert verdict.label == "safe"
    assert "The picture shows: " in told[0]
