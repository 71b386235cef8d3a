"""Streams around models that cannot stream, and guards around guards."""

from __future__ import annotations

from typing import Any

from safecode_guard import Verdict
from safecode_guard.testing import ScriptedJudge
from tests.messages import ask
from tests.unit.attack.models import Plain
from tests.unit.runnables.guards import judged_only, merged


def test_a_model_that_cannot_stream_is_streamed_as_one_chunk() -> None:
    chunks = list(judged_only(0.1, Plain()).stream(ask()))
    assert merged(chunks).text == "ok"
    assert len(Verdict.all_from_message(merged(chunks))) == 1


async def test_a_model_that_cannot_stream_is_streamed_as_one_chunk_on_the_loop() -> None:
    chunks: list[Any] = [chunk async for chunk in judged_only(0.1, Plain()).astream(ask())]
    assert merged(chunks).text == "ok"
    assert len(Verdict.all_from_message(merged(chunks))) == 1


def test_a_guard_within_a_guard_keeps_its_verdict_in_every_form() -> None:
    inner = judged_only(0.9, Plain(), actions={"unsafe": "block"})
    outer = judged_only(ScriptedJudge(0.1, id="outer"), inner)
    whole = Verdict.all_from_message(outer.invoke(ask()))
    streamed = Verdict.all_from_message(merged(list(outer.stream(ask()))))
    assert sorted(v.action for v in whole) == sorted(v.action for v in streamed)
    assert {v.action for v in whole} == {"pass", "block"}
