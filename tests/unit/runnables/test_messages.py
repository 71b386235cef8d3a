"""From a turn's result to messages and chunks."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import invalid_tool_call

from safecode_guard.pipeline.requests import Piece, TurnResult
from safecode_guard.runnables.messages import (
    PROVIDER,
    AnswerShape,
    AnswerStream,
    answer_message,
    chat_result,
    verdict_chunk,
    whole_chunk,
)
from safecode_guard.verdict import PolicyRef, Verdict
from tests.unit.runnables.guards import merged

VERDICT = Verdict(label="safe", action="pass", policy=PolicyRef(name="t", digest="0"))
SHAPE = AnswerShape("tiny")
TOOLS = AnswerShape("tiny", tools=("walk_to",))
CALL = '<tool_call>{"name": "walk_to", "arguments": {"target": "edge"}}</tool_call>'


def result(text: str = "Run.", finish: str = "stop", **fields) -> TurnResult:
    return TurnResult(text, finish, prompt_tokens=7, tokens=(1, 2), **fields)


def streamed(shape: AnswerShape, *events) -> list[AIMessageChunk]:
    stream = AnswerStream(shape)
    return [chunk.message for event in events for chunk in stream.chunks(event)]


# -- whole messages --------------------------------------------------------------------------


def test_a_message_has_text_verdicts_usage_and_origin():
    message = answer_message(result(verdicts=(VERDICT,)), SHAPE)
    assert message.text == "Run."
    assert Verdict.all_from_message(message) == (VERDICT,)
    assert message.usage_metadata == {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
    metadata = message.response_metadata
    assert (metadata["finish_reason"], metadata["model_name"]) == ("stop", "tiny")
    assert metadata["model_provider"] == PROVIDER


def test_a_message_of_an_unjudged_turn_says_nothing_of_verdicts():
    assert "safecode" not in answer_message(result(), SHAPE).response_metadata


def test_calls_in_the_text_become_tool_calls():
    message = answer_message(result(f"Walking. {CALL}"), TOOLS)
    (call,) = message.tool_calls
    assert (call["name"], call["args"]) == ("walk_to", {"target": "edge"})
    assert call["id"].startswith("call_")
    assert message.text.strip() == "Walking."
    assert message.response_metadata["finish_reason"] == "tool_calls"


def test_without_tools_the_text_stays_what_it_is():
    message = answer_message(result(CALL), SHAPE)
    assert (message.text, message.tool_calls) == (CALL, [])


def test_the_guards_own_text_is_never_read_as_a_call():
    message = answer_message(result(CALL, "content_filter"), TOOLS)
    assert (message.text, message.tool_calls) == (CALL, [])


def test_the_refusal_branch_is_marked():
    refused = result('{"refusal": "It is a cliff."}', refused=True)
    message = answer_message(refused, AnswerShape("tiny", ("walk_to",), forced_tool=True))
    assert message.additional_kwargs == {"refusal": "It is a cliff."}


def test_a_native_answer_is_handed_on_with_its_verdicts_added():
    native = AIMessage("Run.", id="own", response_metadata={"model": "other", "n": 1})
    message = answer_message(result(native=native, verdicts=(VERDICT,)), SHAPE)
    assert (message.id, message.response_metadata["model"]) == ("own", "other")
    assert Verdict.all_from_message(message) == (VERDICT,)
    assert native.response_metadata == {"model": "other", "n": 1}
    assert answer_message(result(native=native), SHAPE) is native


def test_of_a_withheld_answer_nothing_native_is_left():
    withheld = TurnResult("No.", "content_filter", verdicts=(VERDICT,), native=AIMessage("Jump."))
    message = answer_message(withheld, SHAPE)
    assert message.text == "No."
    assert "Jump" not in message.model_dump_json()


def test_a_chat_result_says_why_the_answer_ended():
    (generation,) = chat_result(result(finish="length"), SHAPE).generations
    assert generation.generation_info == {"finish_reason": "length"}
    assert generation.message.text == "Run."


# -- chunks ----------------------------------------------------------------------------------


def test_a_stream_is_verdict_text_and_one_closing_chunk():
    chunks = streamed(SHAPE, VERDICT, Piece("Ru"), Piece("n."), result("Run.", verdicts=(VERDICT,)))
    assert [chunk.text for chunk in chunks] == ["", "Ru", "n.", ""]
    assert [bool(Verdict.all_from_message(chunk)) for chunk in chunks] == [True] + [False] * 3
    assert [chunk.chunk_position for chunk in chunks] == [None, None, None, "last"]
    whole = merged(chunks)
    assert whole.usage_metadata["total_tokens"] == 9
    assert whole.response_metadata["finish_reason"] == "stop"


def test_two_verdicts_merge_into_a_list():
    other = VERDICT.model_copy(update={"id": "other", "stage": "output"})
    whole = merged([verdict_chunk([VERDICT]), AIMessageChunk("Run."), verdict_chunk([other])])
    assert [verdict.stage for verdict in Verdict.all_from_message(whole)] == ["input", "output"]


def test_an_error_is_raised_where_it_comes():
    stream = AnswerStream(SHAPE)
    assert list(stream.chunks(Piece("Ru")))
    with pytest.raises(KeyError):
        list(stream.chunks(KeyError("broken")))


def test_withheld_text_is_given_whole():
    chunks = streamed(SHAPE, VERDICT, TurnResult("No.", "content_filter", verdicts=(VERDICT,)))
    assert [chunk.text for chunk in chunks] == ["", "No.", ""]


def test_native_pieces_are_handed_on_and_the_whole_is_not_given_again():
    pieces = [AIMessageChunk("Ru", id="own"), AIMessageChunk("n.", id="own")]
    events = [Piece(piece.text, piece) for piece in pieces]
    native = result(native=AIMessage("Run."))
    assert streamed(SHAPE, VERDICT, *events, native)[1:] == pieces
    (only,) = streamed(SHAPE, native)
    assert (only.text, only.chunk_position) == ("Run.", "last")


def test_a_whole_message_becomes_one_chunk_that_merges_into_the_same():
    call = {"name": "walk_to", "args": {"target": "edge"}, "id": "1", "type": "tool_call"}
    message = AIMessage("Run.", tool_calls=[call], id="own", response_metadata={"model": "other"})
    chunk = whole_chunk(message)
    assert json.loads(chunk.tool_call_chunks[0]["args"]) == {"target": "edge"}
    whole = merged([verdict_chunk([VERDICT]), chunk])
    assert whole.tool_calls == [call]
    assert whole.response_metadata["model"] == "other"


@pytest.mark.parametrize(
    "body", ['{"name": "walk_to", "arguments": {"target": "ed', '{"name": "jump", "arguments": {}}']
)
def test_a_call_that_could_not_be_read_is_none_in_a_stream_either(body):
    """LangChain mends broken JSON in chunks, and would make a valid call of it."""
    text = f"<tool_call>{body}</tool_call>"
    whole = merged(streamed(TOOLS, result(text)))
    assert whole.tool_calls == answer_message(result(text), TOOLS).tool_calls == []
    assert [json.loads(call["args"]) for call in whole.invalid_tool_calls] == [body]
    native = AIMessage("", invalid_tool_calls=[invalid_tool_call(args=body, name="jump", id="1")])
    chunk = whole_chunk(native)
    assert chunk.tool_calls == []
    assert [json.loads(call["args"]) for call in chunk.invalid_tool_calls] == [body]


PIECES = [CALL, "<tool_call>", "<", "tool_", "Walk", "ing <b>", '{"name"', "</tool_call>"]


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), st.lists(st.integers(1, 9)))
def test_a_stream_adds_up_to_the_message_however_it_is_cut(text, cuts):
    events, at = [], 0
    for size in [*cuts, len(text) + 1]:
        if at < len(text):
            events.append(Piece(text[at : at + size]))
        at += size
    whole = merged(streamed(TOOLS, *events, result(text)))
    message = answer_message(result(text), TOOLS)
    assert whole.text.strip() == message.text.strip()
    assert [(c["name"], c["args"]) for c in whole.tool_calls] == [
        (c["name"], c["args"]) for c in message.tool_calls
    ]
    assert len(whole.invalid_tool_calls) == len(message.invalid_tool_calls)
