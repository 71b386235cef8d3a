"""Servers for the tests of a real vLLM: `make test-vllm`, with its interpreter in VLLM_PYTHON."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.tiny.load import weights_path
from tests.vllm.serving import ASYNC, PROCESSOR, SCALE_OUT, SYNC, Server, served_files, serving

PYTHON = os.environ.get("VLLM_PYTHON", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not PYTHON and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="VLLM_PYTHON names no interpreter"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("vllm")
    served_files(made)
    return made


@pytest.fixture(scope="session")
def local() -> TransformersModel:
    return TransformersModel.load(str(weights_path("chat")), local_files_only=True)


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[Server]:
    """Run a server as it should be started."""
    with serving(PYTHON, folder, [*SCALE_OUT, *PROCESSOR, *ASYNC]) as made:
        yield made


@pytest.fixture(scope="module")
def tight(folder: Path) -> Iterator[Server]:
    """Run one whose prompts are computed in pieces, with the other scheduler."""
    flags = ["--max-num-batched-tokens", "64", "--max-num-seqs", "8"]
    with serving(PYTHON, folder, [*SCALE_OUT, *PROCESSOR, *SYNC, *flags]) as made:
        yield made


@pytest.fixture(scope="module")
def unscheduled(folder: Path) -> Iterator[Server]:
    """Run one with the processor and vLLM's own scheduler."""
    with serving(PYTHON, folder, [*SCALE_OUT, *PROCESSOR]) as made:
        yield made


@pytest.fixture(scope="module")
def bare(folder: Path) -> Iterator[Server]:
    """Run one without the plug-in."""
    with serving(PYTHON, folder, SCALE_OUT) as made:
        yield made
