"""What every `Engine` and its sessions must do, over all implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from safecode_guard.engines.delegate import DelegateEngine
from safecode_guard.errors import ModelError
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.labels import label_tokens
from safecode_guard.judges.protocol import JudgeRequest, OpenPrompt
from safecode_guard.models.protocol import Engine, Job, Needs, Question, Sampling
from safecode_guard.pipeline.factory import make_examiner, make_turns
from safecode_guard.pipeline.requests import TurnRequest, TurnResult
from safecode_guard.policy import Policy
from safecode_guard.testing import ScriptedJudge, ScriptedServer, ScriptedVLM
from safecode_guard.turns.turn import Turn
from tests.families import ask, picture
from tests.vllm_server import VLLMServer, engine_on

GREEDY = Sampling(do_sample=False, max_tokens=16)
TOOL = {"type": "function", "function": {"name": "walk_to", "parameters": {"type": "object"}}}
REPLIES = {"I can't help with that.": 0.0, "Run along.": 0.6}


def scripted(build: Callable[[str], Any]) -> Engine:
    return ScriptedVLM(REPLIES, p_unsafe=0.9)


def server(build: Callable[[str], Any]) -> Engine:
    return ScriptedServer(ScriptedVLM(REPLIES, p_unsafe=0.9))


def transformers(build: Callable[[str], Any]) -> Engine:
    engine: Engine = build("qwen2_5_vl")
    return engine


def delegate(build: Callable[[str], Any]) -> Engine:
    return DelegateEngine(GenericFakeChatModel(messages=_forever("Run along.")))


def vllm(build: Callable[[str], Any]) -> Engine:
    return engine_on(VLLMServer(build("qwen2_5_vl")))


def _forever(text: str) -> Iterator[AIMessage]:
    while True:
        yield AIMessage(text)


ENGINES = [scripted, server, transformers, delegate, vllm]
SCORING = [scripted, server, transformers, vllm]


@pytest.fixture
def engine(request: pytest.FixtureRequest, build: Callable[[str], Any]) -> Engine:
    made: Engine = request.param(build)
    return made


all_engines = pytest.mark.parametrize("engine", ENGINES, indirect=True)
scoring_engines = pytest.mark.parametrize("engine", SCORING, indirect=True)


def turns() -> list[Turn]:
    return [ask("Hello!", picture(1)), ask("How do I run faster here?", picture(2))]


def texts(engine: Engine, asked: list[Turn], **options: Any) -> list[str]:
    found = [""] * len(asked)
    with closing(engine.open(asked, GREEDY)) as session:
        for delta in session.answer([Job(i, t, GREEDY, **options) for i, t in enumerate(asked)]):
            assert delta.error is None, delta.error
            found[delta.index] += delta.text
    return found


@all_engines
def test_satisfies_the_protocol(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert engine.id
    assert "/" not in engine.id
    assert engine.abilities.steers <= (engine.vocabulary is not None)


@all_engines
def test_every_answer_ends_once_with_a_finish(engine: Engine) -> None:
    for turn in turns():
        with closing(engine.open([turn], GREEDY)) as session:
            deltas = list(session.answer([Job(0, turn, GREEDY)]))
        assert [bool(d.finish) for d in deltas] == [False] * (len(deltas) - 1) + [True]
        assert {d.index for d in deltas} == {0}


@all_engines
def test_turns_of_one_key_are_answered_as_they_would_be_alone(engine: Engine) -> None:
    asked = turns()
    keys = {engine.batch_key(turn, GREEDY, ()) for turn in asked}
    together = texts(engine, asked) if len(keys) == 1 else None
    alone = [texts(engine, [turn])[0] for turn in asked]
    assert together in (None, alone)


@all_engines
def test_a_closed_session_does_not_go_on(engine: Engine) -> None:
    (turn, _) = turns()
    session = engine.open([turn], GREEDY)
    answer = session.answer([Job(0, turn, replace(GREEDY, max_tokens=200), live=True)])
    next(answer)
    session.close()
    assert len(list(answer)) <= 3


@all_engines
def test_a_passed_deadline_or_a_foreign_error_is_the_jobs_own(engine: Engine) -> None:
    if not engine.abilities.logits:
        pytest.skip("deadlines of remote calls are the client's")
    asked = turns()
    with closing(engine.open(asked, GREEDY)) as session:
        deltas = list(
            session.answer([Job(0, asked[0], GREEDY, deadline=0.0), Job(1, asked[1], GREEDY)])
        )
    ends = {d.index: d for d in deltas if d.finish or d.error}
    assert ends[0].error is not None
    assert ends[1].finish


@scoring_engines
def test_scores_are_of_the_tokens_that_were_asked_for(engine: Engine) -> None:
    assert engine.vocabulary is not None
    labels = label_tokens(engine.vocabulary)
    asked = turns()
    tokens = labels.safe | labels.unsafe
    with closing(engine.open(asked, GREEDY)) as session:
        questions = [Question(i, t.ask("Safe or unsafe."), tokens) for i, t in enumerate(asked)]
        scores = session.ask(questions)
    assert [set(s) for s in scores] == [set(tokens)] * 2
    assert all(value <= 0 for s in scores for value in s.values())


@pytest.mark.parametrize("tools", [(), (TOOL,)], ids=["no tools", "tools"])
@scoring_engines
def test_a_verdict_is_the_same_alone_and_on_the_open_prompt(engine: Engine, tools: Any) -> None:
    """What the turn may call is no part of the scene, and so of no key in the cache."""
    judge = LabelLogitsJudge(engine, min_label_mass=0)
    for turn in turns():
        request = JudgeRequest.of_turn(turn)
        with closing(engine.open([turn], GREEDY, tools=tools)) as session:
            shared = judge.judge(replace(request, prompt=OpenPrompt(engine, session, 0)))
            answer = [d for d in session.answer([Job(0, turn, GREEDY)]) if d.finish]
        alone = judge.judge(request)
        assert shared.p_unsafe == pytest.approx(alone.p_unsafe, abs=1e-4)
        assert answer


def test_an_engine_without_scores_says_so(build: Callable[[str], Any]) -> None:
    (turn, _) = turns()
    with (
        closing(delegate(build).open([turn], GREEDY)) as session,
        pytest.raises(ModelError, match="no access to its scores"),
    ):
        session.ask([Question(0, turn, frozenset({1}))])


# -- strategies on engines ------------------------------------------------------------------------


def guided(engine: Engine, turn: Turn, *, p: float = 0.95, strategy: Any = None, **decoding: Any):
    policy = Policy.load({"judge": {"kind": "custom", "id": "scripted"}, "decoding": decoding})
    served = make_turns(engine, make_examiner(policy, judge=ScriptedJudge(p)), strategy=strategy)
    (result,) = served.run([TurnRequest(turn, GREEDY)])
    return result


@pytest.mark.parametrize("recipe", ["guarded", "paper", "reference"])
@pytest.mark.parametrize("p", [0.05, 0.95])
def test_a_record_steers_behind_the_wall_as_the_object_does_in_process(recipe, p) -> None:
    def replies(scene):
        grey = scene.images and scene.images[0].getpixel((0, 0)) == (128, 128, 128)
        return {"I can't help with that.": 0.4, "Run along.": 0.2 if grey else 0.6}

    (turn, _) = turns()
    model = ScriptedVLM(replies)
    options = {"recipe": recipe, "lambda_boost": 2.0, "reference_view": "grey"}
    here = guided(model, turn, p=p, **options)
    there = guided(ScriptedServer(model), turn, p=p, **options)
    plain = guided(model, turn, p=0.5, **options)
    assert isinstance(here, TurnResult), here
    assert isinstance(there, TurnResult), there
    assert here.tokens == there.tokens
    assert here.verdicts[0].decoding == there.verdicts[0].decoding
    if recipe != "reference":
        assert (here.text == plain.text) is (p < 0.5)


@dataclass
class Reading:
    """Reads the last layer's states, as activation steering does."""

    id: str = "reading"
    needs = Needs(hidden_layer=-1)
    seen: Any = None

    def prepare(self, context):
        self.seen = []
        return self

    def record(self, context):
        return {"layer": -1}

    steps = 2
    second = None
    max_tokens = None

    def done(self, so_far):
        return len(so_far) >= self.steps

    def adjust(self, step):
        self.seen.append(tuple(step.hidden.shape))
        return step.logits[0]


@dataclass
class Probing:
    """Asks the model something of its own before it answers."""

    id: str = "probing"
    needs = Needs(logits=False)
    heard: Any = None

    def prepare(self, context):
        turn = context.turn.ask("What is there?")
        self.heard = context.probe([turn, turn], max_tokens=4, hidden_layer=-1)

    def record(self, context):
        return {}


@pytest.mark.parametrize("engine", [scripted, transformers], indirect=True)
def test_a_strategy_reads_hidden_states(engine: Engine) -> None:
    strategy = Reading()
    plain = texts(engine, turns()[:1])[0]
    result = guided(engine, turns()[0], strategy=strategy)
    assert result.text == plain
    assert [shape[0] for shape in strategy.seen] == [1, 1]
    assert result.verdicts[0].decoding.parameters == {"layer": -1}


@pytest.mark.parametrize("engine", [scripted, transformers], indirect=True)
def test_a_strategy_probes_the_model(engine: Engine) -> None:
    strategy = Probing()
    guided(engine, turns()[0], strategy=strategy)
    first, second = strategy.heard
    assert first.text == second.text
    assert first.hidden.shape[0] == len(first.tokens) <= 4
    alone = next(d for d in _probe_job(engine) if d.finish)
    assert alone.tokens == first.tokens


def _probe_job(engine: Engine):
    turn = turns()[0].ask("What is there?")
    sampling = Sampling(do_sample=False, max_tokens=4)
    with closing(engine.open([turn], sampling)) as session:
        yield from session.answer([Job(0, turn, sampling)])


@pytest.mark.parametrize("strategy", [Reading(), None])
def test_a_strategy_that_cannot_run_is_refused_at_the_start(strategy: Any) -> None:
    engine = server(lambda name: None) if strategy else delegate(lambda name: None)
    with pytest.raises(ModelError, match=r"hidden states|edits logits"):
        guided(engine, turns()[0], strategy=strategy)
