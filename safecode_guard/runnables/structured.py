"""Structured output and tools: the chains around a chat model, and around a guard of one."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final, Literal

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.base import BaseOutputParser
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableLambda,
    RunnableMap,
    RunnableParallel,
    RunnablePassthrough,
    RunnableSequence,
)
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, ConfigDict

from safecode_guard.errors import PolicyError

Method = Literal["json_schema", "json_mode", "function_calling"]

FORCED: Final = "safecode_forced"
"""Tells a guard that the answer is parsed into a form: providers name theirs as they like, and
LangChain takes its own mark out before a model is called."""


class Refusal(BaseModel):
    """What structured output gives when the model refuses and the caller allowed it to."""

    model_config = ConfigDict(frozen=True)

    refusal: str


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


def rebind_tools(
    guard: BaseChatModel, model: BaseChatModel, tools: Sequence[Any], options: dict[str, Any]
) -> Runnable[Any, AIMessage]:
    """Return the guard with tools bound in the form that the guarded model gives them.

    Raises:
        PolicyError: If the model does something else than bind arguments; the guard would be lost.
    """
    inner = model.bind_tools(tools, **options)
    if not isinstance(inner, RunnableBinding) or inner.bound is not model:
        raise PolicyError(
            f"{type(model).__name__}.bind_tools does more than bind arguments.",
            hint="Bind the tools to the guard yourself: guard.bind(tools=[...]).",
        )
    return guard.bind(**inner.kwargs)


def rebind_structured(
    guard: BaseChatModel, model: BaseChatModel, schema: Any, **options: Any
) -> Runnable[Any, Any]:
    """Return the model's own chain for structured output with the guard in the model's place.

    Raises:
        PolicyError: If the model cannot be found in that chain; the guard would be lost.
    """
    chain = model.with_structured_output(schema, **options)
    replaced: Runnable[Any, Any] | None = _replaced(chain, model, guard.bind(**{FORCED: True}))
    if replaced is None:
        raise PolicyError(
            f"The chain of {type(model).__name__}.with_structured_output hides its model.",
            hint="Bind the schema to the guard yourself, and parse its answer.",
        )
    return replaced


def _replaced(chain: Any, model: Any, guard: Any) -> Any:
    """Return a chain with a model replaced wherever it stands, or None if it is not in it."""
    if chain is model:
        return guard
    if isinstance(chain, RunnableBinding):
        bound = _replaced(chain.bound, model, guard)
        return bound and guard.bind(**chain.kwargs).with_config(chain.config)
    if isinstance(chain, RunnableSequence):
        steps = [_replaced(step, model, guard) for step in chain.steps]
        if not any(steps):
            return None
        merged = (new or old for new, old in zip(steps, chain.steps, strict=True))
        return RunnableSequence(*merged)
    if isinstance(chain, RunnableParallel):
        named = {key: _replaced(step, model, guard) for key, step in chain.steps__.items()}
        if not any(named.values()):
            return None
        return RunnableParallel({k: named[k] or old for k, old in chain.steps__.items()})
    return None
