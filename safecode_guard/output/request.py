"""What form of answer one call asks for, and the grammar that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from safecode_guard.models.protocol import Constraint, Tool, Vocabulary


@dataclass(frozen=True)
class OutputForm:
    """What form of answer one call asks for."""

    tools: tuple[Tool, ...] = ()
    choice: str | None = None
    """``any``, or a tool's name, where a tool call is forced."""
    schema: Mapping[str, Any] | None = None
    """The JSON schema the answer must follow."""
    allow_refusal: bool = False

    @property
    def forced(self) -> bool:
        """Whether the answer has to follow a form, which leaves no room for other words."""
        return self.forced_tool or self.schema is not None

    @property
    def forced_tool(self) -> bool:
        """Whether the answer has to be a tool call."""
        return self.choice is not None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> OutputForm:
        """Read the options of a LangChain call: tools, tool_choice, response_format."""
        tools = tuple(options.get("tools") or ())
        choice = options.get("tool_choice")
        if choice == "none":
            tools = ()
        return cls(
            tools,
            _choice(choice) if tools else None,
            _schema(options.get("response_format")),
            bool(options.get("allow_refusal", False)),
        )


def _choice(choice: Any) -> str | None:
    if choice in (None, "auto", False):
        return None
    if choice in ("any", "required", True):
        return "any"
    return str(choice["function"]["name"] if isinstance(choice, Mapping) else choice)


def _schema(response_format: Any) -> Mapping[str, Any] | None:
    if not response_format or response_format.get("type") == "text":
        return None
    form = response_format.get("json_schema", response_format)
    schema: Mapping[str, Any] = form.get("schema") or {"type": "object"}
    return schema


Maker = Callable[[int], Constraint]


def constraints(vocabulary: Vocabulary, output: OutputForm) -> tuple[Maker | None, Maker | None]:
    """Return what makes the answer's grammar and its refusal branch; None where there is none.

    Raises:
        ConstraintError: If a schema cannot be compiled, or llguidance is not installed.
    """
    if not output.forced:
        return None, None
    from safecode_guard.output.grammar import Grammar

    allow = output.allow_refusal
    if output.schema is not None:
        grammar = Grammar.from_json_schema(output.schema, vocabulary, allow_refusal=allow)
    else:
        grammar = Grammar.from_tools(
            output.tools, vocabulary, choice=output.choice, allow_refusal=allow
        )
    return grammar.constraint, Grammar.refusal(vocabulary).constraint if allow else None


def is_forced(options: Mapping[str, Any]) -> bool:
    """Return whether a call's options, in the form of most providers, force its answer's form."""
    if options.get("response_format"):
        return True
    choice = options.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, Mapping) else choice
    return kind not in (None, False, "auto", "none")
