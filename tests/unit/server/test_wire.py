from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from safecode_guard.server.doors import Refused
from safecode_guard.server.wire import ChatRequest

HELLO = [{"role": "user", "content": "hello"}]


def request(**more: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "tiny", "messages": HELLO, **more})


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"logprobs": True},
        {"top_logprobs": 3},
        {"logit_bias": {"1": 5}},
        {"presence_penalty": 0.5},
        {"functions": [{"name": "f"}]},
        {"audio": {"voice": "x"}},
        {"modalities": ["audio"]},
        {"messages": []},
        {"messages": "hello"},
        {"max_tokens": 0},
        {"max_tokens": -3},
        {"temperature": 3},
        {"temperature": "hot"},
        {"top_p": 0},
        {"stop": 7},
        {"stream": "perhaps"},
        {"safecode": {"policies": {}}},
        {"tools": "look"},
    ],
)
def test_what_cannot_be_honoured_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request(**more)


@pytest.mark.parametrize(
    "more",
    [
        {"n": 1},
        {"logprobs": False},
        {"user": "ann"},
        {"metadata": {"a": "b"}},
        {"store": False},
        {"reasoning_effort": "low"},
        {"parallel_tool_calls": True},
        {"presence_penalty": 0},
    ],
)
def test_what_asks_for_nothing_is_let_be(more: dict[str, Any]) -> None:
    assert request(**more).options() == {}


def test_options_are_those_that_were_given() -> None:
    asked = request(max_tokens=5, max_completion_tokens=7, temperature=0, stop="\n", seed=3)
    assert asked.options() == {"max_tokens": 7, "temperature": 0, "seed": 3}
    assert asked.stop == ["\n"]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "nobody", "content": "x"},
        {"content": "x"},
        {"role": "tool", "content": "x"},
        {"role": "assistant", "tool_calls": [{"id": 1}]},
        {"role": "user", "content": 7},
        {},
    ],
)
def test_what_is_no_message_is_told_by_its_place(message: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=r"messages\[1\]"):
        request(messages=[*HELLO, message]).read()


def test_an_answer_that_only_calls_tools_has_no_content() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    told = {"role": "tool", "tool_call_id": "1", "content": "a cup"}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    read = request(messages=[*HELLO, answer, told]).read()
    assert read[1].tool_calls[0]["args"] == {"at": 1}
