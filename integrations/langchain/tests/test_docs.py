"""The distribution's own page: its snippets run, in order, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"
FENCE = re.compile(r"^```python\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?P<target>[^)#]+)\)")


def test_the_snippets_run() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    found = [match["code"] for match in FENCE.finditer(README.read_text())]
    assert len(found) == 2
    for code in found:
        exec(compile(code, str(README), "exec"), names)


def test_the_links_lead_somewhere() -> None:
    targets = LINK.findall(README.read_text())
    assert targets
    for target in targets:
        assert (README.parent / target).exists(), target


def test_the_one_line_is_on_the_first_screen() -> None:
    first_screen = "\n".join(README.read_text().splitlines()[:30])
    assert "create_agent(" in first_screen
    assert "middleware=[SafeCoDeMiddleware(guard)]" in first_screen
