import random
from typing import Any

import pytest
import torch

from safecode_guard.tiny import network, world
from safecode_guard.tiny.blocks import Block, Turn
from safecode_guard.tiny.corpus import Corpus
from safecode_guard.tiny.packing import ROW_LENGTH, Packer, collate, pictures
from safecode_guard.tiny.tokens import END, build_processor


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    torch.manual_seed(3)
    return network.build_network(
        tokenizer.get_vocab_size(), width=32, vision_layers=1, text_layers=2
    ).eval()


def _plain_logits(model: Any, processor: Any, block: Block, scene: world.Scene) -> torch.Tensor:
    tools = [{"name": name} for turn in block.turns for name in turn.tools]
    text = processor.apply_chat_template(block.messages(), tools=tools, tokenize=False)
    shown = [*([scene] if block.sees_picture else []), *block.pictures]
    images = [each.image for each in shown] or None
    inputs = processor(text=[text], images=images, return_tensors="pt")
    logits: torch.Tensor = model(**inputs).logits[0]
    return logits


def test_packed_blocks_give_the_logits_of_the_plain_conversation(
    model: Any, tokenizer: Any
) -> None:
    processor, packer = build_processor(tokenizer), Packer(tokenizer)
    scene, other = world.draw(11, "stove", True), world.draw(12, "path", True)
    look = Turn("Heat this up.", "<tool_call>", tools=("take_photo",))
    made = [
        Block("caption", (Turn("Describe this image.", scene.caption),)),
        Block("request", (Turn("Hi", "Hello!"), Turn("Thanks", "You are welcome!"))),
        Block("talk", (Turn("Who are you?", "A model."),), sees_picture=False),
        Block("order", (Turn("Heat this up.", "Done.", role="user"), Turn("ok", "x", role="tool"))),
        Block("judge", (Turn("Safe?", "unsafe", pictures=(other, scene)),), sees_picture=False),
        Block(
            "robot",
            (look, Turn("", "No.", role="tool", pictures=(scene,))),
            sees_picture=False,
        ),
    ]
    row = packer.row(scene, made)
    assert row.scenes == [scene, other, scene, scene]
    batch = collate([row], pictures(row.scenes, None))
    with torch.no_grad():
        packed = network.read(model, batch, network.see(model, batch.pixels))[0]
        for block, (_, begin, end) in zip(made, row.spans, strict=True):
            plain = _plain_logits(model, processor, block, scene)[-(end - begin) :]
            assert torch.allclose(packed[begin:end], plain, atol=1e-4), block.kind


def test_packed_ids_are_those_of_the_template(tokenizer: Any) -> None:
    processor, packer = build_processor(tokenizer), Packer(tokenizer)
    scene = world.draw(12, "floor", False)
    made = [b for b in Corpus(random.Random(4)).blocks(scene) if b.sees_picture]
    made = [b for b in made if not any(turn.tools for turn in b.turns)]
    assert len(made) >= 3
    for block in made:
        row = packer.row(scene, [block])
        text = processor.apply_chat_template(block.messages(), tokenize=False)
        plain = processor(text=[text], images=[scene.image], return_tensors="pt").input_ids[0]
        assert row.ids == plain.tolist()


def test_only_reply_tokens_count_in_the_loss(tokenizer: Any) -> None:
    packer = Packer(tokenizer)
    block = Block(
        "judge", (Turn("See?", "It is sunny.", weight=0), Turn("Safe?", "safe", weight=4))
    )
    ids, weights = packer.encode(block)
    counted = [(token, weight) for token, weight in zip(ids, weights, strict=True) if weight]
    assert counted == [(tokenizer.encode("safe").ids[0], 4), (END, 1)]


def test_rows_stay_within_their_length_and_drop_no_picture(tokenizer: Any) -> None:
    rng = random.Random(2)
    batch = Packer(tokenizer).sample(rng, Corpus(rng), 40)
    assert batch.ids.shape[1] <= ROW_LENGTH
    assert batch.pixels.shape[0] == sum(len(row.scenes) for row in batch.rows) > 40
    assert batch.pixels.min() >= -1
    assert batch.pixels.max() <= 1


def test_noise_is_for_training_alone() -> None:
    scenes = [world.draw(seed) for seed in range(12)]
    clean = pictures(scenes, None)
    assert torch.equal(clean, pictures(scenes, None))
    assert torch.equal(pictures(scenes, random.Random(1)), pictures(scenes, random.Random(1)))
    assert not torch.equal(clean, pictures(scenes, random.Random(1)))
