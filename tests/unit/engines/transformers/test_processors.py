from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.models.got_ocr2 import image_processing_pil_got_ocr2 as got_ocr2
from transformers.models.idefics2 import image_processing_pil_idefics2 as idefics2
from transformers.models.idefics3 import image_processing_pil_idefics3 as idefics3
from transformers.models.mllama import image_processing_pil_mllama as mllama
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from safecode_guard.engines.transformers.processors import (
    image_only,
    load_processor,
    require_packages,
)
from safecode_guard.engines.transformers.sizes import working_size
from safecode_guard.errors import UnsupportedFamily
from safecode_guard.models.families import FAMILIES, Family, SizeRule

SIDES = st.integers(8, 900)
GRID = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def size_of(images: Any, rule: SizeRule, width: int, height: int) -> tuple[int, int]:
    processor = SimpleNamespace(image_processor=images)
    return working_size(processor, Family("x", size_rule=rule), Image.new("L", (width, height)))


def pixels(width: int, height: int) -> Any:
    import numpy as np

    return np.zeros((1, height, width))


def test_fixed() -> None:
    images = hf.SiglipImageProcessorPil(size={"height": 96, "width": 128})
    assert size_of(images, "fixed", 640, 480) == (128, 96)


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES)
def test_shortest_edge_is_what_the_processor_does(width: int, height: int) -> None:
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 56}, do_center_crop=False)
    found = images(Image.new("RGB", (width, height)))["pixel_values"][0].shape
    assert size_of(images, "shortest_edge", width, height) == (found[2], found[1])


def test_shortest_edge_of_a_processor_that_stretches() -> None:
    images = hf.SiglipImageProcessorPil(size={"height": 96, "width": 96})
    assert size_of(images, "shortest_edge", 640, 480) == (96, 96)


@given(st.integers(28, 3000), st.integers(28, 3000))
def test_patch_multiple_is_smart_resize(width: int, height: int) -> None:
    images = hf.Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 512 * 512})
    rows, columns = smart_resize(height, width, 28, 56 * 56, 512 * 512)
    assert size_of(images, "patch_multiple", width, height) == (columns, rows)


@given(SIDES, SIDES)
def test_both_edges_are_those_of_idefics2(width: int, height: int) -> None:
    images = hf.Idefics2ImageProcessorPil(size={"shortest_edge": 120, "longest_edge": 300})
    rows, columns = idefics2.get_resize_output_image_size(pixels(width, height), images.size)
    assert size_of(images, "longest_edge", width, height) == (columns, rows)


@settings(max_examples=40, deadline=None)
@given(st.integers(30, 900), st.integers(30, 900))
def test_split_sizes_are_those_of_idefics3(width: int, height: int) -> None:
    images = hf.Idefics3ImageProcessorPil(
        size={"longest_edge": 256}, max_image_size={"longest_edge": 64}
    )
    rows, columns = idefics3.get_resize_output_image_size(pixels(width, height), 256)
    resized = images.resize_for_vision_encoder(pixels(columns, rows), 64)
    expected = (resized.shape[2], resized.shape[1])
    assert size_of(images, "longest_edge", width, height) == expected


def test_longest_edge_only_shrinks() -> None:
    images = SimpleNamespace(size={"longest_edge": 100})
    assert size_of(images, "longest_edge", 400, 200) == (100, 50)
    assert size_of(images, "longest_edge", 40, 20) == (40, 20)


@given(SIDES, SIDES)
def test_grid_is_that_of_llava_next(width: int, height: int) -> None:
    images = hf.LlavaNextImageProcessorPil(image_grid_pinpoints=GRID)
    best = select_best_resolution((height, width), GRID)
    rows, columns = get_patch_output_size(pixels(width, height), best, "channels_first")
    assert size_of(images, "tiles", width, height) == (columns, rows)


@given(SIDES, SIDES)
def test_tiles_are_those_of_internvl(width: int, height: int) -> None:
    images = hf.GotOcr2ImageProcessorPil(size={"height": 64, "width": 64}, max_patches=6)
    columns, rows = got_ocr2.get_optimal_tiled_canvas((height, width), (64, 64), 1, 6)
    assert size_of(images, "tiles", width, height) == (columns * 64, rows * 64)


@given(SIDES, SIDES)
def test_canvas_is_that_of_mllama(width: int, height: int) -> None:
    images = hf.MllamaImageProcessorPil(size={"height": 64, "width": 64}, max_image_tiles=4)
    canvas = mllama.get_optimal_tiled_canvas(height, width, 4, 64)
    rows, columns = mllama.get_image_size_fit_to_canvas(height, width, *canvas, 64)
    assert size_of(images, "tiles", width, height) == (columns, rows)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.needs_torchvision])
def test_missing_torchvision_is_named(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UnsupportedFamily, match="need torchvision.*Install the torchvision build"):
        require_packages(family)


def test_missing_package_is_named() -> None:
    with pytest.raises(UnsupportedFamily, match="need no_such_package.*families"):
        require_packages(Family("x", needs_packages=("json", "no_such_package")))


def test_image_only_class_has_no_video_processor() -> None:
    made = image_only(hf.Qwen2VLProcessor)
    assert made is image_only(hf.Qwen2VLProcessor), "one class, so that pickling and caches work"
    assert "video_processor" not in made.get_attributes()
    assert issubclass(made, hf.Qwen2VLProcessor)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "internvl", "smolvlm", "gemma3"])
def test_processor_comes_back_from_disk(
    name: str, build: Callable[[str], Any], tmp_path: Path
) -> None:
    vlm = build(name)
    vlm.processor.save_pretrained(tmp_path)
    vlm.model.config.save_pretrained(tmp_path)
    loaded = load_processor(
        str(tmp_path), config=vlm.model.config, family=vlm.family, local_files_only=True
    )
    image, text = Image.new("RGB", (80, 60), (200, 30, 60)), "describe the scene"
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    prompt = loaded.apply_chat_template(message, add_generation_prompt=True)
    images: Any = [[image]] if vlm.family.nested_images else [image]
    left, right = (
        p(text=[prompt], images=images, return_tensors="pt") for p in (loaded, vlm.processor)
    )
    assert type(loaded.image_processor).__name__.endswith("Pil")
    assert left.keys() == right.keys()
    for key in left:
        assert (left[key] == right[key]).all()
