"""Hooks of the documentation's site: pages that stand outside of docs/, and links to them."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).parents[1]
ELSEWHERE: Final = {
    "README.md": "start.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "integrations/langchain/README.md": "agents-package.md",
    "integrations/vllm/README.md": "vllm-package.md",
}
"""Pages of the repository outside of docs/, and where the site has them."""

_LINK: Final = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside of docs/."""
    for path, place in ELSEWHERE.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links lead where their page is on the site; a link to what is not on it is its text."""
    here = page.file.src_uri
    origin = next((path for path, place in ELSEWHERE.items() if place == here), f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        target = link["target"]
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        place = ELSEWHERE.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(place) is None:
            return link["text"]
        to = posixpath.relpath(place, posixpath.dirname(here) or ".")
        return f"[{link['text']}]({to}{link['anchor'] or ''})"

    return _LINK.sub(moved, markdown)
