"""An engine that is another chat model: how it is called, and what does not get out."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from PIL import Image
from pydantic import PrivateAttr

from safecode_guard.engines.delegate import DelegateEngine
from safecode_guard.errors import LogitsUnavailable
from safecode_guard.models.families import GENERIC
from safecode_guard.models.protocol import Abilities, AsyncSession, Delta, Job, Question, Sampling
from safecode_guard.testing import EventRecorder
from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.turn import Turn
from tests.messages import ask, image_block

HELP = "Run along the edge."


class Noting(GenericFakeChatModel):
    """Notes the options of every call."""

    _seen: list[dict[str, Any]] = PrivateAttr(default_factory=list)

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        self._seen.append(kwargs)
        return super()._generate(*args, **kwargs)


def says(*texts: str) -> Noting:
    return Noting(messages=iter([AIMessage(text) for text in texts or (HELP,)]))


def turn() -> Turn:
    return read_turn(ask())


def answer(model: Any, *jobs: Job) -> list[Delta]:
    turns = [job.turn for job in jobs]
    with closing(DelegateEngine(model).open(turns, Sampling())) as session:
        return list(session.answer(jobs))


async def aanswer(model: Any, *jobs: Job) -> list[Delta]:
    with closing(DelegateEngine(model).open([job.turn for job in jobs], Sampling())) as session:
        return [delta async for delta in session.aanswer(jobs)]


# -- what it is ------------------------------------------------------------------------------


def test_it_knows_nothing_of_the_model_and_can_do_nothing_with_it():
    engine = DelegateEngine(says())
    assert engine.id == "generic-fake-chat-model"
    assert engine.family is GENERIC
    assert engine.vocabulary is None
    assert engine.abilities == Abilities(takes_files=True)
    assert engine.working_size(Image.new("RGB", (3, 2))) == (3, 2)
    assert isinstance(engine.open([], Sampling()), AsyncSession)


def test_turns_are_never_called_together():
    engine, one, other = DelegateEngine(says()), turn(), turn()
    keys = [engine.batch_key(each, Sampling(), ()) for each in (one, one, other)]
    assert keys[0] == keys[1] != keys[2]


def test_it_cannot_be_asked_for_scores():
    session = DelegateEngine(says()).open([turn()], Sampling())
    with pytest.raises(LogitsUnavailable, match="Noting"):
        session.ask([Question(0, turn(), frozenset({1}))])


# -- calls -----------------------------------------------------------------------------------


def test_each_job_is_a_call_with_its_own_options():
    model = says("one", "two")
    deltas = answer(model, Job(0, turn(), options={"effort": "low"}), Job(1, turn()))
    assert [(d.index, d.text, d.finish) for d in deltas] == [(0, "one", "stop"), (1, "two", "stop")]
    assert [seen.get("effort") for seen in model._seen] == ["low", None]
    assert [d.native.content for d in deltas] == ["one", "two"]


async def test_each_job_is_a_call_on_the_event_loop_too():
    deltas = await aanswer(says("one", "two"), Job(0, turn()), Job(1, turn()))
    assert [(d.index, d.text, d.finish) for d in deltas] == [(0, "one", "stop"), (1, "two", "stop")]


def test_the_model_is_given_the_turn_as_it_was_read():
    class Looking(FakeListChatModel):
        def _call(self, messages: Any, *args: Any, **kwargs: Any) -> str:
            seen.extend(messages)
            return HELP

    seen: list[Any] = []
    asked = turn()
    answer(Looking(responses=[HELP]), Job(0, asked))
    again = read_turn(seen)
    assert again.query == asked.query
    assert [image.pixels.tobytes() for image in again.images] == [
        image.pixels.tobytes() for image in asked.images
    ]


@pytest.mark.parametrize("live", [False, True])
def test_one_failing_call_costs_the_others_nothing(live):
    class Failing(FakeListChatModel):
        def _call(self, messages: Any, *args: Any, **kwargs: Any) -> str:
            if kwargs.get("fail"):
                raise ConnectionError("down")
            return HELP

        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("fail"):
                raise ConnectionError("down")
            yield from super()._stream(*args, **kwargs)

    jobs = [Job(0, turn(), live=live, options={"fail": True}), Job(1, turn(), live=live)]
    deltas = answer(Failing(responses=[HELP]), *jobs)
    assert isinstance(deltas[0].error, ConnectionError)
    assert "".join(d.text for d in deltas if d.index == 1) == HELP


async def test_one_failing_call_costs_the_others_nothing_on_the_event_loop():
    class Failing(FakeListChatModel):
        async def _acall(self, *args: Any, **kwargs: Any) -> str:
            raise ConnectionError("down")

        async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
            if kwargs.get("fail"):
                raise ConnectionError("down")
            return ChatResult(generations=[ChatGeneration(message=AIMessage(HELP))])

    jobs = [Job(0, turn(), options={"fail": True}), Job(1, turn())]
    deltas = await aanswer(Failing(responses=[HELP]), *jobs)
    assert isinstance(deltas[0].error, ConnectionError)
    assert deltas[1].text == HELP


# -- streams ---------------------------------------------------------------------------------


def streams(*, live: bool) -> list[Delta]:
    return answer(says(), Job(0, turn(), live=live))


def test_only_who_reads_live_is_given_pieces():
    (whole,) = streams(live=False)
    assert (whole.text, whole.finish) == (HELP, "stop")
    *pieces, last = streams(live=True)
    assert "".join(piece.text for piece in pieces) == HELP
    assert (last.text, last.finish) == ("", "stop")
    assert len(pieces) > 3


async def test_pieces_come_on_the_event_loop_too():
    *pieces, last = await aanswer(says(), Job(0, turn(), live=True))
    assert "".join(piece.text for piece in pieces) == HELP
    assert last.finish == "stop"
    assert last.native.text == HELP


def test_the_pieces_in_the_models_own_form_add_up_to_the_whole():
    *pieces, last = streams(live=True)
    whole = pieces[0].native
    for piece in pieces[1:]:
        assert isinstance(piece.native, AIMessageChunk)
        whole = whole + piece.native
    assert whole.text == last.native.text == HELP


def test_a_stream_without_pieces_is_an_empty_answer():
    class Silent(FakeListChatModel):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            yield from ()

        def stream(self, *args: Any, **kwargs: Any) -> Any:
            yield from ()

    (last,) = answer(Silent(responses=["x"]), Job(0, turn(), live=True))
    assert (last.finish, last.native.text) == ("stop", "")


def test_a_stream_that_is_left_is_closed():
    class Endless(FakeListChatModel):
        def stream(self, *args: Any, **kwargs: Any) -> Any:
            try:
                while True:
                    yield AIMessageChunk("on ")
            finally:
                closed.set()

    closed = threading.Event()
    session = DelegateEngine(Endless(responses=["x"])).open([turn()], Sampling())
    deltas = session.answer([Job(0, turn(), live=True)])
    next(deltas)
    deltas.close()
    assert closed.is_set()


# -- what the answer is read as --------------------------------------------------------------


def test_an_answer_is_read_with_its_calls_and_its_pictures():
    calls = [{"name": "walk", "args": {"to": "edge"}, "id": "1"}]
    drawn = AIMessage(
        [image_block("blue"), {"type": "text", "text": HELP}],
        tool_calls=calls,
        response_metadata={"model_provider": "anthropic"},
    )
    (delta,) = answer(GenericFakeChatModel(messages=iter([drawn])), Job(0, turn()))
    read = delta.read()
    assert delta.text == read.messages[0].text == HELP
    assert len(read.images) == 1
    assert [(call.name, call.arguments) for call in read.messages[0].tool_calls] == [
        ("walk", {"to": "edge"})
    ]


# -- what does not get out -------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True])
def test_nothing_of_the_call_is_told_to_those_who_listen_outside(live):
    """The answer is not out before its verdict, in any trace, event or token callback."""

    class Listening(EventRecorder):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            heard.append(token)

        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            heard.append(response)

    heard: list[Any] = []
    chain = RunnableLambda(lambda _: [d.text for d in streams(live=live)])
    assert "".join(chain.invoke("x", {"callbacks": [Listening()]})) == HELP
    assert heard == []


def test_the_models_own_callbacks_and_cache_live():
    recorder = _Ends()
    model = FakeListChatModel(responses=["one", "two"], callbacks=[recorder], cache=InMemoryCache())
    texts = [answer(model, Job(0, turn()))[0].text for _ in range(2)]
    assert texts == ["one", "one"]
    assert recorder.ends == 2


class _Ends(EventRecorder):
    ends = 0

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.ends += 1


def test_the_inner_runs_id_stays_inside_and_the_providers_own_is_kept():
    (delta,) = answer(says(), Job(0, turn()))
    assert delta.native.id is None
    own = GenericFakeChatModel(messages=iter([AIMessage(HELP, id="provider-1")]))
    (delta,) = answer(own, Job(0, turn()))
    assert delta.native.id == "provider-1"
    assert all(delta.native.id is None for delta in streams(live=True))
