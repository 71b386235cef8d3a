from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.errors import UnreadableCall
from safecode_guard.judges.failsafe import arun_judge
from safecode_guard.judges.protocol import (
    BaseJudge,
    BatchJudge,
    Judge,
    JudgeAbilities,
    JudgeRequest,
    OpenPrompt,
    ToolCallSubject,
    canonical_json,
    judges_on,
)
from safecode_guard.models.protocol import Sampling
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import Judgement
from tests.unit.judges.engines import TableEngine

Make = Callable[..., JudgeRequest]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(['"', " {"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.text(max_size=6), VALUES, max_size=3)
NAMES = st.text('a {"}:,\\', min_size=1, max_size=8)


def call(name: str = "cut", **arguments: Any) -> ToolCallSubject:
    return ToolCallSubject("1", name, arguments)


class Least(BaseJudge):
    id = "least"

    def judge(self, request: JudgeRequest) -> Judgement:
        return Judgement(judge_id=self.id, prompt_version=self.prompt_version, label="safe")


@given(ARGUMENTS)
def test_canonical_json_is_json_and_forgets_only_the_order_of_keys(value: dict[str, Any]) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(dict(reversed(value.items()))) == text


@given(NAMES, ARGUMENTS, NAMES, ARGUMENTS)
def test_calls_that_differ_are_written_differently(
    name: str, arguments: dict[str, Any], other: str, others: dict[str, Any]
) -> None:
    one, two = ToolCallSubject("1", name, arguments), ToolCallSubject("2", other, others)
    alike = name == other and canonical_json(arguments) == canonical_json(others)
    assert (one.canonical() == two.canonical()) == alike
    assert (one.args_sha256() == two.args_sha256()) == alike


def test_letters_and_kinds_of_keys_stay_apart() -> None:
    assert call(what="хлеб").canonical() == 'cut {"what":"хлеб"}'
    assert canonical_json({1: "a", "1": "b"}) == '{"1":"b","int:1":"a"}'
    assert canonical_json({"at": (1, 2)}) == canonical_json({"at": [1, 2]})
    with pytest.raises(UnreadableCall, match="written alike"):
        canonical_json({"at": {1: "a", "int:1": "b"}})


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def circular() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


@pytest.mark.parametrize(
    "given_call",
    [
        {"args": {}},
        {"name": "", "args": {}},
        {"name": 3, "args": {}},
        {"name": "cut", "args": "rope"},
        {"name": "cut", "args": [1]},
        {"name": "cut", "args": {"deep": nested(100_000)}},
        {"name": "cut", "args": circular()},
    ],
    ids=["no name", "empty name", "number", "text", "list", "deep", "circular"],
)
def test_call_that_cannot_be_judged_is_refused(given_call: dict[str, Any]) -> None:
    with pytest.raises(UnreadableCall):
        ToolCallSubject.of(given_call)


def test_call_is_read_in_langchains_form() -> None:
    read = ToolCallSubject.of({"name": "cut", "args": {"what": "rope"}, "id": None, "type": "x"})
    assert read == ToolCallSubject("", "cut", {"what": "rope"})
    assert ToolCallSubject.of({"name": "stop", "args": None}).arguments == {}


def test_key_covers_what_was_seen_and_who_judged(
    request_for: Make, turn: Callable[..., Turn]
) -> None:
    base = request_for()
    different = [
        base,
        request_for("other"),
        JudgeRequest.of_turn(turn(colour="blue")),
        replace(base, stage="output"),
        replace(base, stage="output", answer="a"),
        replace(base, stage="tool_result", result="a"),
        replace(base, stage="tool_call", tool_call=call(what="rope")),
        replace(base, stage="tool_call", tool_call=call(what="bread")),
        replace(base, stage="tool_call", tool_call=call("tie", what="rope")),
    ]
    keys = [request.key("j", "1") for request in different]
    keys += [base.key("k", "1"), base.key("j", "2")]
    assert len(set(keys)) == len(keys)


def test_key_leaves_out_what_was_not_seen(request_for: Make) -> None:
    base = request_for(tool_call=call(what="rope"))
    engine = TableEngine()
    prompt = OpenPrompt(engine, engine.open([base.scene.turn], Sampling()), 0)
    same = replace(base, deadline=1.0, prompt=prompt, tool_call=replace(call(what="rope"), id="9"))
    assert same.key("j", "1") == base.key("j", "1")


def test_stages_have_makers_of_their_own(turn: Callable[..., Turn]) -> None:
    asked = turn("run?")
    made = [
        JudgeRequest.of_turn(asked, deadline=1.0),
        JudgeRequest.of_tool_call(asked, call(), deadline=1.0),
        JudgeRequest.of_tool_result(asked, "text", call=call(), deadline=1.0),
        JudgeRequest.of_answer(asked, "text", deadline=1.0),
    ]
    assert [request.stage for request in made] == ["input", "tool_call", "tool_result", "output"]
    assert all(request.deadline == 1.0 for request in made)
    assert all(request.scene.request == "run?" for request in made)
    assert [(r.tool_call, r.result, r.answer) for r in made] == [
        (None, None, None),
        (call(), None, None),
        (call(), "text", None),
        (None, None, "text"),
    ]


async def test_base_judge_brings_everything_but_the_judging(request_for: Make) -> None:
    judge = Least()
    assert isinstance(judge, Judge)
    assert not isinstance(judge, BatchJudge)
    assert (judge.prompt_version, judge.abilities, judge.members) == ("1", JudgeAbilities(), ())
    assert await judge.ajudge(request_for()) == judge.judge(request_for())
    judge.close()
    with pytest.raises(NotImplementedError, match="BaseJudge"):
        BaseJudge().judge(request_for())


async def test_a_judge_that_runs_out_of_something_fails_and_does_not_hang(
    request_for: Make,
) -> None:
    class Empty(BaseJudge):
        id = "empty"

        def judge(self, request: JudgeRequest) -> Judgement:
            return next(iter(()))

    found = await asyncio.wait_for(arun_judge(Empty(), request_for()), 5)
    assert found.failed == "JudgeError (from StopIteration): the check failed"


def test_members_are_looked_through_for_an_engine() -> None:
    engine, other = TableEngine(), TableEngine()
    inner, middle, outer = Least(), Least(), Least()
    inner.engine = engine  # type: ignore[attr-defined]
    middle.members, outer.members = (Least(), inner), (middle,)
    assert judges_on(outer, engine)
    assert not judges_on(outer, other)
    assert not judges_on(Least(), engine)
