"""Writes docs/reference from the code: JSON Schemas, the policy's keys, the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safecode_guard import errors
from safecode_guard.policy import Policy
from safecode_guard.settings import DELIMITER, PREFIX
from safecode_guard.verdict import Verdict

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
DRAFT = "https://json-schema.org/draft/2020-12/schema"

POLICY_PAGE = """\
# Policy reference

Written by `make docs` from `safecode_guard/policy.py`. The concept is explained in
[policy](../concepts/policy.md); the machine-readable form is
[policy.schema.json](policy.schema.json).

Each key can be given in code, in a TOML or YAML file, or as an environment variable: the key in
capitals, behind `{prefix}`, with `{delimiter}` for each dot, e.g.
`{prefix}THRESHOLDS{delimiter}UNSAFE=0.7`. Lists are JSON in the environment, and `null` means none.
Two keys belong to the settings alone: `preset` (`balanced`, `strict` or `permissive`) and
`{prefix}POLICY_FILE`, the file to read.

| key | type | default | meaning |
|---|---|---|---|
{rows}
"""

API_PAGE = """\
# API

Written by `make docs`: every public name of `safecode_guard`. The site shows the docstrings; errors
have [a page of their own](errors.md).

{blocks}
"""


def reference() -> dict[str, str]:
    """Return the text of each generated file, by name."""
    return {
        "verdict.schema.json": _schema(Verdict),
        "policy.schema.json": _schema(Policy),
        "policy.md": policy_page(),
        "cli.md": cli_page(),
        "errors.md": errors_page(),
        "api.md": api_page(),
    }


def policy_page() -> str:
    """Return the table of all keys of a policy."""
    schema = Policy.model_json_schema()
    rows = "\n".join(_rows(schema, schema))
    return POLICY_PAGE.format(prefix=PREFIX, delimiter=DELIMITER, rows=rows)


def cli_page() -> str:
    """Return the help of every command."""
    from safecode_guard.cli.app import command_help

    pages = "\n\n".join(f"## `{name}`\n\n```text\n{text}\n```" for name, text in command_help())
    return f"# Command line\n\nWritten by `make docs` from `safecode-guard --help`.\n\n{pages}\n"


def api_page() -> str:
    """Return the page of public names, which the site fills in from their docstrings."""
    import safecode_guard

    blocks = []
    for name in safecode_guard.__all__:
        public = getattr(safecode_guard, name)
        home = getattr(public, "__module__", "") or ""
        if not home.startswith("safecode_guard"):  # an alias, such as Action
            home = "safecode_guard.taxonomy"
        if home != "safecode_guard.errors":
            blocks.append(f"::: {home}.{name}")
    return API_PAGE.format(blocks="\n\n".join(blocks))


def errors_page() -> str:
    """Return the tree of errors."""
    title, tree, rest = (errors.__doc__ or "").split("\n\n", 2)
    tree = "\n".join(line.removeprefix("    ") for line in tree.splitlines())
    return f"# Errors\n\n{title}\n\n```text\n{tree}\n```\n\n{rest.replace('``', '`')}"


def _schema(model: type[Verdict] | type[Policy]) -> str:
    schema = {"$schema": DRAFT, **model.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _rows(table: dict[str, Any], root: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield one table row for each leaf below a table of the schema."""
    for name, field in table["properties"].items():
        members = [_resolve(member, root) for member in field.get("oneOf", [field])]
        if len(members) > 1:
            yield from _variant_rows(members, root, f"{path}{name}.")
        elif "properties" in members[0] and not (path and _like(field, root)):
            yield from _rows(members[0], root, f"{path}{name}.")
        else:
            yield _row(f"{path}{name}", field, root)


def _variant_rows(variants: list[dict[str, Any]], root: dict[str, Any], path: str) -> Iterator[str]:
    """Yield the rows of a table that comes in several kinds, each key once."""
    fields: dict[str, dict[str, Any]] = {}
    kinds: dict[str, list[str]] = {}
    for variant in variants:
        for name, field in variant["properties"].items():
            fields.setdefault(name, field)
            kinds.setdefault(name, []).append(variant["properties"]["kind"]["const"])
    yield _row(
        f"{path}kind", {"enum": kinds.pop("kind"), "default": fields["kind"]["default"]}, root
    )
    for name, used_by in kinds.items():
        only = "" if len(used_by) == len(variants) else f"Kinds {', '.join(used_by)}."
        text = f"{fields[name].get('description', '')} {only}"
        yield _row(f"{path}{name}", {**fields[name], "description": text}, root)


def _row(key: str, field: dict[str, Any], root: dict[str, Any]) -> str:
    text = " ".join(field.get("description", "").split()).replace("``", "`").replace("|", "\\|")
    shown = "default" in field and not isinstance(field["default"], dict)
    default = f"`{json.dumps(field['default'])}`" if shown else ""
    return f"| `{key}` | {_kind(field, root)} | {default} | {text} |"


def _resolve(field: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in field:
        return field
    found: dict[str, Any] = root["$defs"][field["$ref"].rsplit("/", 1)[-1]]
    return found


def _kind(field: dict[str, Any], root: dict[str, Any]) -> str:
    """Return a short name of a field's type."""
    if (like := _like(field, root)) is not None:
        return f"table like `{like}`"
    field = _resolve(field, root)
    if "anyOf" in field:
        return " or ".join(_kind(member, root) for member in field["anyOf"])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array" and "prefixItems" in field:
        return f"[{', '.join(_kind(member, root) for member in field['prefixItems'])}]"
    if field.get("type") == "array":
        return f"list of {_kind(field['items'], root)}"
    if field.get("type") == "object":
        return f"table of {_kind(field['additionalProperties'], root)}"
    return {"null": "none", "integer": "int", "number": "float"}.get(field["type"], field["type"])


def _like(field: dict[str, Any], root: dict[str, Any]) -> str | None:
    """Return the top-level key that is a table with the same keys, or a choice of the same."""
    shape = _shape(field, root)
    tops = root["properties"].items()
    return next((name for name, top in tops if shape and _shape(top, root) == shape), None)


def _shape(field: dict[str, Any], root: dict[str, Any]) -> list[str]:
    if "oneOf" in field:
        return [member["$ref"] for member in field["oneOf"]]
    return sorted(_resolve(field, root).get("properties", ()))


def main() -> None:
    """Write the files, or with --check fail if one is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if out of date")
    check = parser.parse_args().check
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, text in reference().items():
        path = REFERENCE / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if check:
            raise SystemExit(f"{path} is out of date: run `make docs`.")
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
