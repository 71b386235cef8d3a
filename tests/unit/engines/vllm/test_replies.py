"""What a server says, and what is no reply of a vLLM server at all."""

from __future__ import annotations

import math
from typing import Any

import pytest

from safecode_guard.engines.vllm.replies import Reply, label_scores, piece_of, whole_reply
from safecode_guard.errors import ModelError
from safecode_guard.output.tools import parse_answer


def choice(**fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": fields.pop("content", "Hello")}
    message["tool_calls"] = fields.pop("calls", None)
    return {
        "choices": [{"token_ids": [5, 6], "finish_reason": "stop", "message": message} | fields]
    }


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_an_answer_is_its_tokens() -> None:
    data = choice(finish_reason="length") | {"usage": {"prompt_tokens": 9}}
    assert whole_reply(data) == Reply((5, 6), "length", 9)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"choices": []},
        choice(token_ids=None),
        choice(token_ids=[5, True]),
        choice(token_ids=[-1]),
        choice(token_ids=["5"]),
        choice(finish_reason="abort"),
        choice(finish_reason="content_filter"),
    ],
)
def test_what_is_no_reply_is_an_error(data: Any) -> None:
    with pytest.raises(ModelError):
        whole_reply(data)


def test_calls_that_the_server_read_are_read_again_as_they_were() -> None:
    data = choice(content="Let me see.", calls=[call("walk", '{"to": "the </tool_call> door"}')])
    answer = parse_answer(whole_reply(data, tools=True).said or "", names={"walk"})
    assert answer.text == "Let me see."
    assert [(c.name, c.arguments) for c in answer.calls] == [
        ("walk", {"to": "the </tool_call> door"})
    ]


def test_a_forced_call_is_the_whole_text() -> None:
    data = choice(content=None, calls=[call("walk", "{}")])
    said = whole_reply(data, tools=True, forced=True).said or ""
    assert [c.name for c in parse_answer(said, forced=True, names={"walk"}).calls] == ["walk"]


def test_a_call_that_the_server_passed_on_broken_stays_invalid() -> None:
    data = choice(content="", calls=[call("walk", '{"to": ')])
    answer = parse_answer(whole_reply(data, tools=True).said or "", names={"walk"})
    assert not answer.calls
    assert len(answer.invalid) == 1


def test_pieces_have_tokens_and_the_last_a_finish() -> None:
    first = {"choices": [{"delta": {"role": "assistant"}, "finish_reason": None}]}
    assert piece_of(first) == Reply()
    last = {"choices": [{"delta": {}, "token_ids": [7], "finish_reason": "stop"}]}
    assert piece_of(last) == Reply((7,), "stop")
    assert piece_of({"choices": [], "usage": {"prompt_tokens": 4}}) == Reply(prompt_tokens=4)
    for broken in ({"error": {"message": "x"}}, {"choices": None}, None, 5):
        with pytest.raises(ModelError):
            piece_of(broken)


def scores(*entries: tuple[str, float]) -> dict[str, Any]:
    named = [{"token": token, "logprob": value} for token, value in entries]
    content = [{**named[0], "top_logprobs": named}]
    return {"choices": [{"logprobs": {"content": content}}]}


def test_scores_are_read_by_token_and_none_may_be_missing() -> None:
    data = scores(("token_id:9", -0.1), ("token_id:3", -2.5))
    assert label_scores(data, [3]) == {3: -2.5}
    for wrong in (data, scores(("unsafe", -0.1)), scores(("token_id:4", math.nan)), {}):
        with pytest.raises(ModelError):
            label_scores(wrong, [4])
