"""Requests, in the form of the API; what cannot be honoured is refused, not passed over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from langchain_core.messages import BaseMessage, convert_to_messages
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from safecode_guard.server.doors import Refused
from safecode_guard.taxonomy import Stage

MOST_MESSAGES: Final = 2048

_NOTHING: Final[dict[str, tuple[Any, ...]]] = {
    "n": (None, 1), "logprobs": (None, False), "top_logprobs": (None, 0), "logit_bias": (None, {}),
    "presence_penalty": (None, 0), "frequency_penalty": (None, 0), "functions": (None, []),
    "function_call": (None, "none"), "audio": (None,), "modalities": (None, ["text"]),
    "web_search_options": (None,), "prediction": (None,),
}  # fmt: skip
"""Options of the API that are not honoured, and the values of them that ask for nothing."""


class Wish(BaseModel):
    """What a request wants of the guard."""

    model_config = ConfigDict(extra="forbid")

    policy: dict[str, Any] = Field(default_factory=dict)
    """Keys of the policy, narrowed."""
    allow_refusal: bool = False
    """Whether an answer that has to follow a schema may refuse instead."""


class StreamOptions(BaseModel):
    """What comes with a stream."""

    include_usage: bool = False


class Conversation(BaseModel):
    """A request that holds messages."""

    model_config = ConfigDict(protected_namespaces=())

    model: str | None = None
    messages: list[dict[str, Any]] = Field(min_length=1, max_length=MOST_MESSAGES)
    safecode: Wish = Wish()

    def read(self) -> list[BaseMessage]:
        """Return the messages.

        Raises:
            Refused: If one is none; says which.
        """
        return read_messages(self.messages, "messages")


class ChatRequest(Conversation):
    """``POST /v1/chat/completions``."""

    model_config = ConfigDict(extra="allow")

    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, gt=0)
    max_completion_tokens: int | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = None
    stop: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _stops(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_honoured(self) -> ChatRequest:
        for name, nothing in _NOTHING.items():
            if (self.model_extra or {}).get(name) not in nothing:
                raise ValueError(f"{name} is not supported")
        return self

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to tell its tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def options(self) -> dict[str, Any]:
        """Return the options of a LangChain call; what was not given is left to the model."""
        names = ("temperature", "top_p", "seed", "tools", "tool_choice", "response_format")
        given = {name: getattr(self, name) for name in names}
        given["max_tokens"] = self.max_completion_tokens or self.max_tokens
        found = {name: value for name, value in given.items() if value is not None}
        if self.safecode.allow_refusal:
            found["allow_refusal"] = True
        return found


class CheckRequest(Conversation):
    """``POST /v1/checks``: judge, and answer nothing."""

    model_config = ConfigDict(extra="forbid")

    stage: Stage | None = None
    tool_call: dict[str, Any] | None = None
    """A call, as LangChain has it (name, args, id) or as the API does (function)."""
    answer: str | None = None


class GuardrailRequest(BaseModel):
    """LiteLLM's generic guardrail: what its proxy sends before a model is called, and after."""

    input_type: Literal["request", "response"]
    texts: list[str] = Field(default_factory=list)
    images: list[str] = Field(default_factory=list)
    """URLs, data URLs or bare base64."""
    structured_messages: list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None


def read_messages(given: Sequence[dict[str, Any]], name: str) -> list[BaseMessage]:
    """Return messages in LangChain's form.

    Raises:
        Refused: If one is none; says which.
    """
    read: list[BaseMessage] = []
    for index, each in enumerate(given):
        try:
            read += convert_to_messages([_with_content(each)])
        except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError):
            raise Refused(400, "invalid_request", f"{name}[{index}] is no message.") from None
    return read


def _with_content(given: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose content is there: an answer that only calls tools may have none.

    Raises:
        TypeError: If a block's type is no word; LangChain looks it up in a table.
    """
    content = given.get("content")
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict) and not isinstance(block.get("type"), str | None):
            raise TypeError
    return given if content is not None else {**given, "content": ""}
