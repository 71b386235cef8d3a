from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from safecode_guard.tiny.load import load, weights_path


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return Tokenizer.from_file(str(weights_path("chat") / "tokenizer.json"))


@pytest.fixture(scope="session")
def chat() -> tuple[Any, Any]:
    return load("chat")
