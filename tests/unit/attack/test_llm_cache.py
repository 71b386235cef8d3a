"""LangChain's cache of answers, which is shared by all models of a process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from PIL import Image

from safecode_guard import ChatTransformers, Verdict
from safecode_guard.testing import ScriptedJudge
from tests.messages import ask, text_block
from tests.unit.attack.models import SECRET, Plain
from tests.unit.runnables.guards import guarded, judged_only

BLOCK = {"actions": {"unsafe": "block"}}


@pytest.fixture
def shared() -> Iterator[InMemoryCache]:
    cache = InMemoryCache()
    set_llm_cache(cache)
    yield cache
    set_llm_cache(None)


def bmp(colour: str) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "BMP")
    return buffer.getvalue()


def test_another_picture_in_the_same_memory_is_judged() -> None:
    memory = bytearray(bmp("red"))
    block = {"type": "image", "base64": memoryview(memory), "mime_type": "image/bmp"}
    judge = ScriptedJudge(0.1)
    guard = guarded(judge=judge, cache=InMemoryCache())
    guard.invoke([HumanMessage([block, text_block("q")])])
    memory[:] = bmp("blue")
    guard.invoke([HumanMessage([block, text_block("q")])])
    assert len(judge.requests) == 2


def test_an_artifact_that_was_drawn_on_is_judged() -> None:
    shot = Image.new("RGB", (8, 8), "red")
    call = AIMessage("", tool_calls=[{"name": "shoot", "args": {}, "id": "1"}])
    result = ToolMessage("taken", tool_call_id="1", artifact={"shot": shot})
    judge = ScriptedJudge(0.1)
    guard = guarded(judge=judge, cache=InMemoryCache())
    guard.invoke([HumanMessage("q"), call, result])
    shot.paste("blue", (0, 0, 8, 8))
    guard.invoke([HumanMessage("q"), call, result])
    assert len(judge.requests) == 2


def test_guards_whose_judges_are_asked_differently_share_no_answers() -> None:
    lenient, strict = ScriptedJudge(0.1), ScriptedJudge(0.9)
    strict.prompt_version = "strict-2"
    cache = InMemoryCache()
    guarded(judge=lenient, cache=cache, policy=BLOCK).invoke(ask())
    reply = guarded(judge=strict, cache=cache, policy=BLOCK).invoke(ask())
    found = Verdict.from_message(reply)
    assert found is not None
    assert found.action == "block"


def test_models_whose_processors_differ_share_no_answers() -> None:
    small = ChatTransformers.tiny(processor_kwargs={"max_pixels": 1000})
    large = ChatTransformers.tiny(processor_kwargs={"max_pixels": 9000})
    assert small._get_llm_string() != large._get_llm_string()


def test_an_answer_that_was_withheld_is_in_no_cache(shared: InMemoryCache) -> None:
    judge = ScriptedJudge(lambda request: 0.9 if request.stage == "output" else 0.1)
    stages: Any = {"output": {"when": "always"}}
    guard = judged_only(judge, Plain(reply=SECRET), stages=stages, actions={"unsafe": "block"})
    assert SECRET not in str(guard.invoke(ask()))
    assert SECRET not in str(shared._cache)


def test_what_a_sink_never_saw_is_not_answered_from_the_cache() -> None:
    cache, told = InMemoryCache(), []
    guarded(0.1, cache=cache).invoke(ask())
    guarded(0.1, cache=cache, sinks=[told.append]).invoke(ask())
    assert told
