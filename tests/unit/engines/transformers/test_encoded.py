from __future__ import annotations

import pytest
import torch

from safecode_guard.engines.transformers.encoded import EncodedPrompts

PAD, IMAGE = 0, 9


def prompts() -> EncodedPrompts:
    return EncodedPrompts(
        {
            "input_ids": torch.tensor([[PAD, PAD, 1, IMAGE, 2], [3, IMAGE, IMAGE, 4, PAD]]),
            # The second row ends with a real token that happens to be the padding token.
            "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
            "mm_token_type_ids": torch.tensor([[0, 0, 0, 1, 0], [0, 1, 1, 0, 0]]),
            "cross_attention_mask": torch.arange(10).view(2, 5, 1, 1),
            "pixel_values": torch.ones(3, 2),
        },
        pad_id=PAD,
        image_ids=frozenset({IMAGE}),
    )


def test_ids_come_without_padding() -> None:
    assert prompts().ids == [[1, IMAGE, 2], [3, IMAGE, IMAGE, 4, PAD]]
    assert prompts().counts == [3, 5]


def test_cut_pads_every_per_token_input_on_the_left() -> None:
    cut = prompts().cut([2, 3])
    assert cut.inputs["input_ids"].tolist() == [[PAD, 1, IMAGE], [3, IMAGE, IMAGE]]
    assert cut.inputs["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert cut.inputs["mm_token_type_ids"].tolist() == [[0, 0, 1], [0, 1, 1]]
    assert cut.inputs["cross_attention_mask"].flatten(1).tolist() == [[0, 2, 3], [5, 6, 7]]
    assert cut.inputs["pixel_values"] is not None
    assert cut.ids == [[1, IMAGE], [3, IMAGE, IMAGE]]


def test_cut_to_full_length_changes_nothing() -> None:
    whole = prompts()
    cut = whole.cut(whole.counts)
    for key, value in whole.inputs.items():
        assert torch.equal(
            cut.inputs[key] * (key != "cross_attention_mask"),
            value * (key != "cross_attention_mask"),
        )


@pytest.mark.parametrize("lengths", [[1, 3], [2, 2], [0, 5], [4, 5], [2, 6]])
def test_cut_through_an_image_or_beyond_the_row_is_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="images whole"):
        prompts().cut(lengths)


def test_needs_a_length_per_row() -> None:
    with pytest.raises(ValueError):
        prompts().cut([2])


def test_has_images() -> None:
    assert prompts().has_images
    assert not EncodedPrompts({"input_ids": torch.ones(1, 1)}, pad_id=0).has_images
