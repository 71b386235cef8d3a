"""Guided answers of a server: equal to those in process, or an error; never anything else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.engines.vllm.engine import VLLMEngine
from safecode_guard.errors import (
    LogitsUnavailable,
    ModelUnavailable,
    SteeringUnproven,
    TurnTimeout,
    UnsupportedGeneration,
)
from safecode_guard.models.protocol import Engine, Job, Sampling
from safecode_guard.pipeline.factory import make_examiner, make_turns
from safecode_guard.pipeline.requests import TurnRequest, TurnResult
from safecode_guard.policy import Policy
from safecode_guard.testing import ScriptedJudge
from tests.families import ask, picture
from tests.vllm_server import VLLMServer, engine_on

GREEDY = Sampling(do_sample=False, max_tokens=12)


@pytest.fixture(scope="module")
def model(build: Callable[[str], Any]) -> TransformersModel:
    made: TransformersModel = build("qwen2_5_vl")
    return made


@pytest.fixture
def served() -> Iterator[Callable[..., tuple[VLLMServer, VLLMEngine]]]:
    engines: list[VLLMEngine] = []

    def make(model: TransformersModel, **faults: Any) -> tuple[VLLMServer, VLLMEngine]:
        address = faults.pop("address", {})
        server = VLLMServer(model)
        engine = engine_on(server, address=address)
        engines.append(engine)
        if faults.get("part_after"):
            engine.probe()
        server.faults = type(server.faults)(**faults)
        return server, engine

    yield make
    for engine in engines:
        engine.close()


def guided(
    engine: Engine,
    *,
    p: float = 0.95,
    sampling: Sampling = GREEDY,
    live: bool = False,
    **decoding: Any,
) -> Any:
    """Return how one turn ends."""
    policy = Policy.load(
        {
            "judge": {"kind": "custom", "id": "scripted"},
            "decoding": {"sigma": 0.6, "lambda_boost": 3.0, **decoding},
        }
    )
    turns = make_turns(engine, make_examiner(policy, judge=ScriptedJudge(p)))
    (result,) = turns.run(
        [TurnRequest(ask("How do I run faster here?", picture(2)), sampling, live=live)]
    )
    return result


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("p", [0.05, 0.95])
@pytest.mark.parametrize("recipe", ["guarded", "paper"])
def test_tokens_are_those_of_one_process(model, served, recipe, p, live) -> None:
    _, engine = served(model)
    here = guided(model, p=p, recipe=recipe)
    there = guided(engine, p=p, recipe=recipe, live=live)
    assert isinstance(there, TurnResult), there
    assert (there.tokens, there.text, there.finish) == (here.tokens, here.text, here.finish)
    assert there.verdicts[0].decoding == here.verdicts[0].decoding


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("after", [[0], [1], [2, 1], [0, 0, 1, 0, 2], [3, 0]])
def test_parted_pairs_go_on_from_what_is_certified(model, served, after, live) -> None:
    server, engine = served(model, part_after=list(after))
    here, there = guided(model), guided(engine, live=live)
    assert isinstance(there, TurnResult), there
    assert there.tokens == here.tokens
    assert not server.faults.part_after
    pairs = [r for r in server.requests if "safecode" in str(r.get("vllm_xargs", ""))]
    assert len(pairs) >= 2


def test_an_answer_shorter_than_its_guidance_is_whole(model, served) -> None:
    short = Sampling(do_sample=False, max_tokens=2)
    _, engine = served(model)
    assert guided(engine, sampling=short).tokens == guided(model, sampling=short).tokens


def test_one_view_is_steered_as_well(model, served) -> None:
    _, engine = served(model)
    assert guided(engine, alpha=0.0).tokens == guided(model, alpha=0.0).tokens


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ({"plugin": False}, SteeringUnproven),
        ({"in_step": False}, SteeringUnproven),
        ({"forge": True}, SteeringUnproven),
        ({"refuse": "twin"}, ModelUnavailable),
        ({"refuse": "main"}, ModelUnavailable),
        ({"lose": "twin", "address": {"timeout_s": 0.3}}, ModelUnavailable),
        ({"lose": "main", "address": {"timeout_s": 0.3}}, ModelUnavailable),
        ({"status": 503}, ModelUnavailable),
    ],
)
def test_whatever_fails_no_unproven_token_comes_out(model, served, faults, error, live) -> None:
    server, engine = served(model, **faults)
    result = guided(engine, live=live)
    assert isinstance(result, error), result
    assert server.open == 0


@pytest.mark.parametrize("faults", [{"plugin": False}, {"in_step": False}, {"forge": True}])
def test_a_plugin_that_goes_after_the_probe_is_missed_as_well(model, served, faults) -> None:
    server, engine = served(model)
    engine.probe()
    server.faults = type(server.faults)(**faults)
    assert isinstance(guided(engine), SteeringUnproven)


def test_without_scale_out_a_parted_pair_is_an_error_that_says_so(model, served) -> None:
    _, engine = served(model, part_after=[1], scale_out=False)
    with pytest.raises(ModelUnavailable, match="enable-scale-out"):
        raise guided(engine)


def test_a_deadline_ends_both_halves(model, served) -> None:
    server, engine = served(model)
    engine.probe()
    server.faults.lose = "twin"
    policy = Policy.load({"judge": {"kind": "custom", "id": "scripted"}})
    turns = make_turns(engine, make_examiner(policy, judge=ScriptedJudge(0.95)))
    deadline = time.monotonic() + 0.4
    (result,) = turns.run([TurnRequest(ask("Hello!", picture(1)), GREEDY, deadline=deadline)])
    assert isinstance(result, TurnTimeout)
    assert server.open == 0


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(do_sample=True, temperature=0.7),
        Sampling(do_sample=False, repetition_penalty=1.2),
    ],
)
def test_only_greedy_answers_are_guided(model, served, sampling) -> None:
    server, engine = served(model)
    assert isinstance(guided(engine, sampling=sampling), UnsupportedGeneration)
    assert server.requests == []


def test_the_reference_recipe_is_refused(model, served) -> None:
    _, engine = served(model)
    assert isinstance(guided(engine, recipe="reference"), LogitsUnavailable)


def test_the_probe_is_sent_once_and_again_after_it_failed(model, served) -> None:
    server, engine = served(model, plugin=False)
    for _ in range(2):
        with pytest.raises(SteeringUnproven, match="without the plug-in"):
            engine.probe()
    assert len(server.requests) == 4
    server.faults.plugin = True
    engine.probe()
    engine.probe()
    assert len(server.requests) == 6


def test_halves_go_to_one_replica_and_have_the_same_prompt(model) -> None:
    server = VLLMServer(model)
    engine = engine_on(server, replicas=4)
    with closing(engine):
        assert isinstance(guided(engine), TurnResult)
    halves = [
        (headers["X-data-parallel-rank"], request["messages"][0]["content"][-1])
        for request, headers in zip(server.requests, server.headers, strict=True)
        if len(request["messages"][0]["content"]) > 1
        and "vllm_xargs" in request
        and request["messages"][0]["content"] != "Hello"
    ]
    assert len(halves) == 2
    assert halves[0] == halves[1]


def test_a_plain_answer_beside_it_needs_no_plugin(model, served) -> None:
    _, engine = served(model, plugin=False)
    turn = ask("Hello!", picture(1))
    answers = []
    for each in (model, engine):
        with closing(each.open([turn], GREEDY)) as session:
            answers.append(next(d for d in session.answer([Job(0, turn, GREEDY)]) if d.finish))
    assert answers[0].tokens == answers[1].tokens
    assert answers[0].prompt_tokens == answers[1].prompt_tokens
