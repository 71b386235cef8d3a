from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.engines.transformers.seen import SeenPictures
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.models.protocol import Sampling
from safecode_guard.pipeline.factory import make_examiner, make_turns
from safecode_guard.pipeline.requests import TurnRequest, TurnResult
from safecode_guard.policy import Policy
from tests import families
from tests.families import ask, picture
from tests.threads import at_once

Build = Callable[[str], TransformersModel]


class Counting:
    """An image processor that counts its calls, by what it is shown."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.calls = inner, Counter[str]()

    def __call__(self, images: Any, **options: Any) -> Any:
        self.calls[str(_hashes(images))] += 1
        return self.inner(images, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def _hashes(images: Any) -> Any:
    if isinstance(images, list | tuple):
        return [_hashes(image) for image in images]
    return hash(images.tobytes())


@pytest.fixture(params=families.NAMES)
def vlm(request: pytest.FixtureRequest, build: Build) -> TransformersModel:
    return build(request.param)


def test_pictures_that_were_seen_give_the_same_inputs(vlm: TransformersModel) -> None:
    first, second = ask("Hello!", picture(1)), ask("describe the scene", picture(1))
    second = second.with_pixels(first.pixels)
    seen = SeenPictures()
    for turn in (first, second, first):
        found, wanted = vlm.encode([turn], seen=seen), vlm.encode([turn])
        assert found.inputs.keys() == wanted.inputs.keys()
        for key, value in wanted.inputs.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(found.inputs[key], value), key
            else:
                assert found.inputs[key] == value, key


def test_each_picture_is_processed_once_a_turn_and_view(
    vlm: TransformersModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(vlm.processor.image_processor)
    monkeypatch.setattr(vlm.processor, "image_processor", counting)
    policy = Policy.load(
        {
            "judge": {"kind": "same_model", "cache_size": 0, "min_label_mass": 0},
            "actions": {"safe": "guide", "undecided": "guide"},
            "prefix_cache_bytes": 0,
        }
    )
    served = make_turns(vlm, make_examiner(policy, judge=LabelLogitsJudge(vlm, min_label_mass=0)))
    sampling = Sampling(do_sample=False, max_tokens=3)
    (result,) = served.run([TurnRequest(ask("describe the scene", picture(1)), sampling)])
    assert isinstance(result, TurnResult), result
    if vlm.family.shares_image_prefix:
        copied = vlm.family.name == "idefics2"  # its processor copies pictures on their way
        expected = [1, 2] if copied else [1, 1]
        assert sorted(counting.calls.values()) == expected, "the picture, and its second view"
    assert vlm.processor.image_processor is counting, "put back"


def test_a_refusal_of_the_processor_leaves_it_as_it_was(build: Build) -> None:
    vlm = build("qwen2_vl")
    before = vlm.processor.image_processor
    with pytest.raises(Exception, match="aspect ratio"):
        vlm.encode([ask("Hello!", picture(0, (1200, 4)))], seen=SeenPictures())
    assert vlm.processor.image_processor is before


def test_threads_see_their_own_pictures(build: Build) -> None:
    vlm, wrong = build("llava"), []

    def work(seed: int) -> None:
        seen, turn = SeenPictures(), ask("Hello!", picture(seed))
        wanted = vlm.encode([turn]).inputs["pixel_values"]
        for _ in range(10):
            if not torch.equal(vlm.encode([turn], seen=seen).inputs["pixel_values"], wanted):
                wrong.append(seed)

    at_once(work)
    assert wrong == []
