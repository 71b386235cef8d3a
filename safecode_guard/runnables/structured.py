"""Structured output: what a call asks for, the grammar it needs, and the chain that parses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.base import BaseOutputParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, ConfigDict

from safecode_guard.engines.transformers.protocol import CachedModel
from safecode_guard.models.protocol import Constraint, Tool

Method = Literal["json_schema", "json_mode", "function_calling"]


class Refusal(BaseModel):
    """What structured output gives when the model refuses and the caller allowed it to."""

    model_config = ConfigDict(frozen=True)

    refusal: str


@dataclass(frozen=True)
class Output:
    """What form of answer one call asks for."""

    tools: tuple[Tool, ...] = ()
    choice: str | None = None
    """``any``, or a tool's name, where a tool call is forced."""
    schema: Mapping[str, Any] | None = None
    """The JSON schema the answer must follow."""
    allow_refusal: bool = False

    @property
    def forced_tool(self) -> bool:
        """Whether the answer has to be a tool call."""
        return self.choice is not None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Output:
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


def constraints(model: CachedModel, output: Output) -> tuple[Maker | None, Maker | None]:
    """Return what makes the answer's grammar and its refusal branch; None where there is none.

    Raises:
        ConstraintError: If a schema cannot be compiled, or llguidance is not installed.
    """
    if output.schema is None and not output.forced_tool:
        return None, None
    from safecode_guard.output.grammar import Grammar

    vocabulary, allow = model.vocabulary, output.allow_refusal
    if output.schema is not None:
        grammar = Grammar.from_json_schema(output.schema, vocabulary, allow_refusal=allow)
    else:
        grammar = Grammar.from_tools(
            output.tools, vocabulary, choice=output.choice, allow_refusal=allow
        )
    return grammar.constraint, Grammar.refusal(vocabulary).constraint if allow else None


def structured(
    model: BaseChatModel,
    schema: dict[str, Any] | type,
    *,
    method: Method = "json_schema",
    include_raw: bool = False,
    strict: bool | None = None,
    allow_refusal: bool = False,
) -> Runnable[Any, Any]:
    """Return a chain from messages to objects of a schema, followed by grammar.

    Args:
        model: The chat model; the guard itself, when it is guarded.
        schema: A pydantic class, a TypedDict or a JSON schema.
        method: ``function_calling`` goes through a forced tool call, the others through a grammar
            of the schema itself.
        include_raw: Return ``{"raw", "parsed", "parsing_error"}``.
        strict: Accepted for compatibility: the grammar is always strict.
        allow_refusal: Let the model answer with a `Refusal` instead. Without it, a guard blocks
            the turn (`TurnBlocked`) where it would otherwise steer towards a refusal.
    """
    if method == "function_calling":
        return BaseChatModel.with_structured_output(model, schema, include_raw=include_raw)
    json_schema = convert_to_json_schema(schema)
    bound = model.bind(
        response_format={"type": "json_schema", "json_schema": {"schema": json_schema}},
        allow_refusal=allow_refusal,
        ls_structured_output_format={
            "kwargs": {"method": method, "strict": strict},
            "schema": json_schema,
        },
    )
    parser = _parser(schema, allow_refusal=allow_refusal)
    if not include_raw:
        return bound | parser
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([unparsed], exception_key="parsing_error")


def _parser(schema: dict[str, Any] | type, *, allow_refusal: bool) -> Runnable[AIMessage, Any]:
    parser: BaseOutputParser[Any]
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        parser = PydanticOutputParser(pydantic_object=schema)
    else:
        parser = JsonOutputParser()
    if not allow_refusal:
        return parser

    def parse(message: AIMessage) -> Any:
        found = JsonOutputParser().invoke(message)
        if isinstance(found, dict) and set(found) == {"refusal"}:
            return Refusal.model_validate(found)
        return parser.invoke(message)

    return RunnableLambda(parse)
