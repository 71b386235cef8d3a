"""Documentation is held to the code: snippets run, links lead somewhere, references are current."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if not page.name.startswith(".")
)
FENCE = re.compile(
    r"(?P<marker><!-- not run: [^\n]+ -->\n+)?^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Snippet:
    page: Path
    line: int
    code: str


def snippets(page: Path) -> list[Snippet]:
    """Return the Python blocks of a page, without those that say why they are not run."""
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(page, text[: block.start("code")].count("\n"), block["code"])
        for block in FENCE.finditer(text)
        if block["language"] == "python" and not block["marker"]
    ]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=name_of)
def test_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run in order and share their names, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for snippet in snippets(page):
        # blank lines in front, so that a traceback shows the line of the page
        code = compile("\n" * snippet.line + snippet.code, str(page), "exec", dont_inherit=True)
        exec(code, names)
    assert names.keys() > {"__name__"}


def test_a_snippet_that_fails_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n<!-- not run: a big model -->\n```python\nboom()\n```\n"
        "```console\n$ make\n```\n```python\nassert x == 2\n```\n",
        encoding="utf-8",
    )
    found = snippets(page)
    assert [snippet.code for snippet in found] == ["x = 1\n", "assert x == 2\n"]
    assert found[1].line == 11


LINK = re.compile(r"(?<!!)\[[^\]]+\]\((?P<target>[^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.finditer(text):
        target, _, anchor = link["target"].partition("#")
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{name_of(page)} links to {target}, which does not exist"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{name_of(page)} links to a missing #{anchor}"


FILE = re.compile(r"`((?:[\w.]+/)+[\w.]*)`")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    """``pipeline/rail.py`` is meant within the package, ``tests/unit`` within the repository."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for named in FILE.findall(text):
        found = [root / named for root in (ROOT, ROOT / "safecode_guard")]
        assert any(path.exists() for path in found), f"{name_of(page)} names {named}"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_are_shown_exist(page: Path) -> None:
    from safecode_guard.cli.app import COMMANDS

    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for block in FENCE.finditer(text):
        if block["language"] not in ("console", "bash", "sh"):
            continue
        for command in re.findall(r"\bsafecode-guard ((?:[a-z]+ ?)+)", block["code"]):
            words = command.split()
            known = any(" ".join(words[:n]) in COMMANDS for n in (1, 2))
            assert known, f"{name_of(page)} shows safecode-guard {command}"
        for target in re.findall(r"\bmake ([a-z]+)", block["code"]):
            assert target in targets, f"{name_of(page)} shows make {target}"


def test_the_reference_is_up_to_date() -> None:
    """`make docs` writes it."""
    script = ROOT / "scripts" / "make_reference.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_every_page_is_reachable_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    seen, waiting = set(), [index]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.is_file():
            continue
        seen.add(page)
        for link in LINK.finditer(page.read_text(encoding="utf-8")):
            path = page.parent.joinpath(link["target"].partition("#")[0]).resolve()
            waiting += path.glob("*.md") if path.is_dir() else [path]
    missing = [name_of(page) for page in (ROOT / "docs").rglob("*.md") if page not in seen]
    assert missing == []
