"""Chat completions as a judge's question and answer, in three forms.

``logprobs``: one token, and the probabilities of the likeliest: a probability, nothing to parse.
``json``: an object that the server holds to a schema. ``word``: a text that is read strictly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safecode_guard.errors import JudgeError
from safecode_guard.judges.content import Block
from safecode_guard.judges.labels import written_probability
from safecode_guard.judges.parsing import MALFORMED, Reply, parse_reply
from safecode_guard.judges.prompts import JudgePrompt, json_reply
from safecode_guard.policy import HttpJudgeConfig
from safecode_guard.taxonomy import CATEGORIES, LABELS, Label
from safecode_guard.verdict import ParseStatus, ReplyForm

FORMS: Final[tuple[ReplyForm, ...]] = ("logprobs", "json", "word")
"""From the one that tells most to the one that every endpoint can."""
_TOP: Final = 20
_MAX_TOKENS: Final[Mapping[ReplyForm, int]] = {"logprobs": 1, "json": 400, "word": 16}


@dataclass(frozen=True)
class Answer:
    """What was read of a completion; ``malformed``: nothing, and ``why`` may say more."""

    p_unsafe: float | None = None
    label: Label | None = None
    label_mass: float | None = None
    reply: Reply = MALFORMED
    status: ParseStatus = "malformed"
    why: str | None = None


def prompt_in(form: ReplyForm, prompt: JudgePrompt, config: HttpJudgeConfig) -> JudgePrompt:
    """Return a judge's questions with the sentence on how to reply in a form."""
    if form != "json":
        return prompt
    return replace(prompt, reply=json_reply(caption=config.caption, rationale=config.rationale))


def body(form: ReplyForm, content: Sequence[Block], config: HttpJudgeConfig) -> dict[str, Any]:
    """Return the request that asks for an answer in a form; pictures go inline."""
    asked: dict[str, Any] = {
        "model": config.model,
        "messages": [{"role": "user", "content": [_part(block) for block in content]}],
        "max_tokens": _MAX_TOKENS[form],
        "temperature": 0,
    }
    if form == "logprobs":
        asked |= {"logprobs": True, "top_logprobs": _TOP}
    if form == "json":
        schema = {"name": "verdict", "strict": True, "schema": _schema(config)}
        asked |= {"response_format": {"type": "json_schema", "json_schema": schema}}
    return asked


def read(form: ReplyForm, data: bytes, config: HttpJudgeConfig) -> Answer:
    """Return what a completion says in a form; a reply that cannot be read says nothing.

    Raises:
        JudgeError: If it is no chat completion, or its probabilities are none.
    """
    choice = _choice(data)
    if form == "logprobs":
        return _from_logprobs(choice, config.min_label_mass)
    text = choice.message.content or ""
    whole = choice.finish_reason in (None, "stop") and not choice.message.refusal
    shaped = form == "word" or text.lstrip().startswith("{")
    reply = parse_reply(text) if whole and shaped else MALFORMED
    return Answer(reply.p_unsafe, reply.label, reply=reply, status=reply.status)


class _Part(BaseModel):
    # What others wrote: unknown keys are let be, and no error may quote it.
    model_config = ConfigDict(allow_inf_nan=False, hide_input_in_errors=True)


class _Token(_Part):
    token: str
    logprob: float = Field(strict=True)


class _Position(_Part):
    top_logprobs: list[_Token]


class _Logprobs(_Part):
    content: list[_Position] | None = None


class _Message(_Part):
    content: str | None = None
    refusal: str | None = None


class _Choice(_Part):
    message: _Message
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Completion(_Part):
    choices: list[_Choice] = Field(min_length=1, max_length=1)


def _choice(data: bytes) -> _Choice:
    try:
        return _Completion.model_validate_json(data).choices[0]
    except ValidationError as error:
        raise JudgeError(
            "The judge's endpoint sent something else than a chat completion.",
            hint="Check judge.url: it ends where the API begins, as in http://host:8000/v1.",
            reason="its endpoint's reply is no chat completion",
        ) from error


def _from_logprobs(choice: _Choice, min_label_mass: float) -> Answer:
    positions = choice.logprobs.content if choice.logprobs else None
    if not positions or not positions[0].top_logprobs:
        return Answer(why="its endpoint gives no probabilities of tokens")
    found = written_probability([(t.token, t.logprob) for t in positions[0].top_logprobs])
    if found is None:
        return Answer(why="none of its likeliest tokens begins a label")
    p_unsafe, mass = found
    if mass < min_label_mass:
        return Answer(p_unsafe, "undecided", mass, status="low_mass")
    return Answer(p_unsafe, label_mass=mass, status="logits")


def _part(block: Block) -> Block:
    if block["type"] == "text":
        return block
    url = f"data:{block['mime_type']};base64,{block['base64']}"
    return {"type": "image_url", "image_url": {"url": url}}


def _schema(config: HttpJudgeConfig) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "label": {"type": "string", "enum": list(LABELS)},
        "p_unsafe": {"type": "number"},
        "categories": {"type": "array", "items": {"type": "string", "enum": list(CATEGORIES)}},
    }
    sentences = (("caption", config.caption), ("rationale", config.rationale))
    properties |= {name: {"type": "string"} for name, wanted in sentences if wanted}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
