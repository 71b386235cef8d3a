"""Settings of every test: one thread, no network, tiny models built once per session."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

if TYPE_CHECKING:
    from safecode_guard.engines.transformers.model import TransformersModel

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def build() -> Callable[[str], TransformersModel]:
    """Give the builder of tiny models by family name; see `tests.families`."""
    from tests.families import build

    return build


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    """Let no test continue the prompts of another: the tiny models outlive them."""
    families = sys.modules.get("tests.families")
    for model in families.BUILT if families else ():
        model.kept.clear()
