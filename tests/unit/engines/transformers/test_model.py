from __future__ import annotations

import json
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.errors import ModelError, TemplateError, UnsupportedFamily
from safecode_guard.models.families import RECORD_FILE, Family
from safecode_guard.models.protocol import Sampling
from safecode_guard.turns.turn import TextPart, Turn, TurnMessage
from tests import families
from tests.families import ask, picture
from tests.threads import at_once

Build = Callable[[str], TransformersModel]
GREEDY = Sampling(do_sample=False, max_tokens=6)


@pytest.fixture
def saved(build: Build, tmp_path: Path) -> Callable[[str], Path]:
    """Save a family's tiny model as ``from_pretrained`` wants it."""

    def save(name: str, record: dict[str, Any] | None = None) -> Path:
        vlm = build(name)
        vlm.model.save_pretrained(tmp_path / name)
        vlm.processor.save_pretrained(tmp_path / name)
        if record is not None:
            (tmp_path / name / RECORD_FILE).write_text(json.dumps(record))
        return tmp_path / name

    return save


def test_every_family_comes_back_from_disk(build: Build, saved: Callable[[str], Path]) -> None:
    for name in families.NAMES:
        vlm = build(name)
        loaded = TransformersModel.load(str(saved(name)), local_files_only=True)
        turn = ask("describe the scene", picture(3))
        expected, found = (m.prefill(m.encode([turn]), GREEDY).logits for m in (vlm, loaded))
        torch.testing.assert_close(found, expected, msg=name)
        assert loaded.family == vlm.family
        assert loaded.id == vlm.id, "equal weights, config and tokens: equal ids, wherever they lie"


def test_record_in_the_directory_overrides_the_familys(saved: Callable[[str], Path]) -> None:
    record = {
        "schema": 1,
        "family": "llava",
        "judge_prompt": "Unsafe? {query}",
        "steering": {"a": 1},
    }
    path = saved("llava")
    (path / RECORD_FILE).write_text(json.dumps(record))
    family = TransformersModel.load(str(path), local_files_only=True).family
    assert (family.judge_prompt, family.steering) == ("Unsafe? {query}", {"a": 1})


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not readable JSON"), ("[]", "no JSON object")]
)
def test_broken_record_is_refused(saved: Callable[[str], Path], text: str, message: str) -> None:
    path = saved("llava")
    (path / RECORD_FILE).write_text(text)
    with pytest.raises(UnsupportedFamily, match=message):
        TransformersModel.load(str(path), local_files_only=True)


def test_dtype_device_and_options_are_passed_on(saved: Callable[[str], Path]) -> None:
    vlm = TransformersModel.load(
        str(saved("llava")),
        device="cpu",
        dtype="bfloat16",
        local_files_only=True,
        model_kwargs={"attn_implementation": "eager"},
        processor_kwargs={"use_fast": True},
    )
    assert vlm.model.dtype == torch.bfloat16
    assert vlm.model.config._attn_implementation == "eager"
    turn = ask("describe the scene", picture())
    branch, found = vlm.prefill(vlm.encode([turn]), GREEDY), []
    assert branch.logits.dtype == torch.float32
    while len(found) < GREEDY.max_tokens and not vlm.vocabulary.eos_ids.intersection(found):
        found.append(int(branch.logits.argmax()))
        branch.step(branch.logits.argmax(-1))
    assert vlm.generate([turn], GREEDY) == [vlm.vocabulary.decode(found)]


@pytest.mark.skipif(find_spec("accelerate") is not None, reason="accelerate is installed")
def test_device_map_without_accelerate_names_the_package(saved: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="accelerate"):
        TransformersModel.load(str(saved("llava")), device_map={"": "cpu"}, local_files_only=True)


@pytest.mark.skipif(find_spec("accelerate") is None, reason="needs accelerate")
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "instructblip"])
def test_split_over_devices(
    name: str, build: Build, saved: Callable[[str], Path], tmp_path: Path
) -> None:
    """The language model is offloaded to disk: its parameters are on ``meta`` between calls."""
    expected = build(name)
    turn = ask("describe the scene", picture())
    parts = {n.split(".")[0] for n, _ in expected.model.named_parameters()}
    split: dict[str, str] = dict.fromkeys(parts, "cpu")
    split["language_model" if "language_model" in parts else "model"] = "disk"
    loaded = TransformersModel.load(
        str(saved(name)),
        device_map=split,
        local_files_only=True,
        model_kwargs={"offload_folder": str(tmp_path / "offload")},
    )
    assert loaded.model.hf_device_map == split
    left, right = (m.prefill(m.encode([turn]), GREEDY) for m in (expected, loaded))
    torch.testing.assert_close(right.logits, left.logits, atol=1e-4, rtol=1e-4)
    left.step(left.logits.argmax(-1))
    right.step(right.logits.argmax(-1))
    torch.testing.assert_close(right.logits, left.logits, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_dynamically_quantised_layers_run() -> None:
    model, processor = families.parts("llava")
    int8 = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    vlm = TransformersModel(int8, processor)
    turn = ask("describe the scene", picture())
    branch = vlm.prefill(vlm.encode([turn]), GREEDY)
    branch.extend([[5, 6]])
    assert branch.logits.shape == (1, vlm.vocabulary.size)
    assert len(vlm.generate([turn], GREEDY)) == 1


def test_id_tells_weights_apart(build: Build) -> None:
    same = TransformersModel(*families.parts("llava"), id="llava")
    other = TransformersModel(*families.parts("llava", seed=3), id="llava")
    assert same.id == build("llava").id
    assert other.id != same.id
    assert other.id.startswith("llava@")


def test_encoder_decoders_are_refused() -> None:
    config = hf.Blip2Config(text_config=hf.T5Config(vocab_size=32, d_model=8).to_dict())
    model = torch.nn.Module()
    model.config = config  # type: ignore[assignment]
    with pytest.raises(UnsupportedFamily, match="encoder-decoder.*decoder-only"):
        TransformersModel(model, processor=None)


@pytest.mark.parametrize(
    ("sampling", "model_default", "drawn"),
    [
        (Sampling(), True, True),
        (Sampling(), False, False),
        (Sampling(temperature=0.7), False, True),
        (Sampling(temperature=0.0), True, False),
        (Sampling(temperature=0.0, do_sample=True), True, False),
        (Sampling(temperature=0.7, do_sample=False), True, False),
        (Sampling(do_sample=True), False, True),
    ],
)
def test_samples(build: Build, sampling: Sampling, model_default: bool, drawn: bool) -> None:
    vlm = build("llava")
    vlm.model.generation_config.do_sample = model_default
    try:
        assert vlm.samples(sampling) is drawn
        assert len(vlm.generate([ask("Hello!")], sampling)) == 1
    finally:
        vlm.model.generation_config.do_sample = False


def test_config_with_beams_and_static_cache_is_overruled() -> None:
    vlm = TransformersModel(*families.parts("llava"))
    turn = ask("describe the scene", picture())
    expected = vlm.generate([turn], GREEDY)
    config = vlm.model.generation_config
    config.num_beams, config.num_return_sequences, config.cache_implementation = 4, 2, "static"
    assert vlm.generate([turn], GREEDY) == expected
    branch = vlm.prefill(vlm.encode([turn]), GREEDY)
    assert (branch.rows, type(branch._cache).__name__) == (1, "DynamicCache")


def test_plain_generation_stops_at_stop_strings(build: Build) -> None:
    vlm = build("llava")
    turn = ask("describe the scene", picture())
    (text,) = vlm.generate([turn], Sampling(do_sample=False, max_tokens=24))
    stop = text[5:7]
    (cut,) = vlm.generate([turn], Sampling(do_sample=False, max_tokens=24, stop=(stop,)))
    assert cut == text[: text.index(stop)]


def test_plain_generation_takes_a_batch(build: Build) -> None:
    vlm = build("qwen2_5_vl")
    turns = [ask("Hello!", picture(1)), ask("describe the scene", picture(2, (100, 40)))]
    assert vlm.generate(turns, GREEDY) == [vlm.generate([turn], GREEDY)[0] for turn in turns]


def test_begin_token_is_never_doubled() -> None:
    from tokenizers.processors import TemplateProcessing

    for written in ("", "<s>"):
        model, processor = families.parts("llava")
        processor.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
        processor.chat_template = written + processor.chat_template
        vlm = TransformersModel(model, processor)
        for turn in (ask("Hello!"), ask("Hello!", picture())):
            (ids,) = vlm.encode([turn]).ids
            assert ids[0] == 1
            assert ids.count(1) == 1


def test_tokenizer_without_padding_token_pads_with_its_end() -> None:
    model, processor = families.parts("llava")
    processor.tokenizer.pad_token = None
    vlm = TransformersModel(model, processor)
    prompts = vlm.encode([ask("Hello!", picture()), ask("describe the scene", picture())])
    assert prompts.pad_id == processor.tokenizer.eos_token_id
    assert prompts.counts[0] < prompts.counts[1]
    assert len(vlm.generate([ask("Hello!"), ask("describe the scene")], GREEDY)) == 2


def test_sliding_windows_of_a_config_are_noticed() -> None:
    model, processor = families.parts("idefics2")
    assert TransformersModel(model, processor).family.ragged_extend
    model.config.text_config.sliding_window = 64
    assert not TransformersModel(model, processor).family.ragged_extend


def test_images_that_the_processor_refuses(build: Build) -> None:
    with pytest.raises(ModelError, match="processor refuses.*aspect ratio"):
        build("qwen2_vl").encode([ask("Hello!", picture(0, (1200, 4)))])


def test_image_text_outside_an_image_is_no_image(build: Build) -> None:
    for name in families.NAMES:
        vlm = build(name)
        mark = str(getattr(vlm.processor, "image_token", "<image>"))
        turns = ask(f"{mark}{mark} what is {mark}?", picture()), ask("what is it?", picture())
        prompts = vlm.encode(turns)
        left, right = ([i for i in ids if i in prompts.image_ids] for ids in prompts.ids)
        assert left == right, name


def test_prompt_that_does_not_show_its_image_is_refused() -> None:
    model, processor = families.parts("llava")
    model.config.image_token_id = 3  # as if the two did not belong together
    model.config.image_token_index = 3
    with pytest.raises(TemplateError, match="does not show them"):
        TransformersModel(model, processor).encode([ask("Hello!", picture())])


def test_refused_layout_reaches_the_caller(build: Build) -> None:
    vlm = TransformersModel(build("llava").model, families.parts("llava")[1])
    vlm.processor.chat_template = "{{ raise_exception('System role not supported') }}"
    vlm = TransformersModel(vlm.model, vlm.processor)
    turn = Turn((TurnMessage("system", (TextPart("Be brief."),)),))
    with pytest.raises(TemplateError, match="Fold the system text"):
        vlm.encode([turn])


def test_nothing_is_logged_on_the_way(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("transformers")
    logger.propagate = True
    try:
        with caplog.at_level(logging.WARNING):
            vlm = build("llava")
            vlm.generate([ask("Hello!", picture())], GREEDY)
            branch = vlm.prefill(vlm.encode([ask("Hello!", picture())]), Sampling(temperature=0.5))
            branch.warp(branch.logits, [0])
        assert [record.message for record in caplog.records] == []
    finally:
        logger.propagate = False


def test_unknown_family_still_decodes(build: Build) -> None:
    llava = build("llava")
    vlm = TransformersModel(llava.model, llava.processor, family=Family("generic"))
    turn = ask("describe the scene", picture())
    assert vlm.generate([turn], GREEDY) == llava.generate([turn], GREEDY)


def test_encodes_in_threads(build: Build) -> None:
    vlm = build("llava")
    long, short = ask("What about the second one? " * 200), ask("Hello!")
    expected = vlm.encode([long, short]).ids
    text = long.messages[0].text
    wrong: list[Exception] = []

    def work(own: int) -> None:
        try:
            for _ in range(20):
                if own % 2:
                    assert vlm.encode([long, short]).ids == expected
                else:
                    assert vlm.vocabulary.decode(vlm.vocabulary.encode(text)) == text
        except Exception as error:
            wrong.append(error)

    at_once(work)
    assert wrong == []
