"""What a server imports is light: it has no transformers of ours, no LangChain, no pydantic."""

from __future__ import annotations

import subprocess
import sys

FOREIGN = (
    "langchain_core pydantic pydantic_settings transformers tokenizers PIL yaml jinja2 rich typer"
)


def test_a_server_needs_torch_alone() -> None:
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({FOREIGN.split()!r}))\n"  # None: no import
        "import safecode_guard.steering.pairs.spec, safecode_guard.steering.pairs.acceptance\n"
        "import safecode_guard.steering.safecode.contrast"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
