"""Pages of results: self-contained HTML from the package's templates, all text escaped."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import safecode_guard


def render(template: str, **values: Any) -> str:
    """Return the page that a template makes of some values.

    Args:
        template: Its place in the package, such as ``cli/demo.html.j2``.
        **values: What it is told.
    """
    from jinja2 import Environment

    source = files(safecode_guard).joinpath(template).read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    return page.render(**values)
