"""Guided answers of a real server are those of one process, token for token, and no steps more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.engines.vllm.engine import VLLMEngine
from safecode_guard.pipeline.admission import Admission
from safecode_guard.pipeline.factory import make_examiner, make_turns
from safecode_guard.pipeline.guarded import GuardedTurns
from safecode_guard.pipeline.requests import TurnRequest
from safecode_guard.pipeline.unguarded import unguarded
from safecode_guard.policy import Policy
from tests.vllm.serving import Server
from tests.vllm.turns import (
    CASES,
    GREEDY,
    PICTURES,
    QUESTIONS,
    answers,
    engine_on,
    tokens,
    turn_of,
    turns_on,
)

ALL = [turn_of(picture, question) for picture in PICTURES for question in QUESTIONS]


@pytest.fixture(scope="module")
def engine(server: Server) -> Iterator[VLLMEngine]:
    with closing(engine_on(server)) as made:
        yield made


@pytest.fixture(scope="module")
def expected(local: TransformersModel) -> dict[tuple[str, float], list[tuple[int, ...]]]:
    modes = {(recipe, p) for recipe, p, *_ in CASES}
    return {mode: [tokens(answers(local, *mode, [turn])[0]) for turn in ALL] for mode in modes}


@pytest.mark.parametrize("together", [1, 12])
def test_guided_answers_are_those_of_one_process(engine, expected, together, capsys) -> None:
    right = 0
    for mode, wanted in expected.items():
        given = [
            tokens(result)
            for at in range(0, len(ALL), together)
            for result in answers(engine, *mode, ALL[at : at + together])
        ]
        right += sum(one == other for one, other in zip(given, wanted, strict=True))
        assert given == wanted, mode
    with capsys.disabled():
        print(f"\n{right}/{len(CASES)} exact, {together} at once")


def test_prompts_in_pieces_and_the_other_scheduler_change_nothing(tight, expected, capsys) -> None:
    right = 0
    with closing(engine_on(tight)) as engine:
        for mode, wanted in expected.items():
            given = [tokens(result) for result in answers(engine, *mode, ALL)]
            right += sum(one == other for one, other in zip(given, wanted, strict=True))
            assert given == wanted, mode
    with capsys.disabled():
        print(f"\n{right}/{len(CASES)} exact under 64 tokens a step and 8 sequences")


def test_judgements_are_those_of_one_process(engine, local) -> None:
    found = []
    for each in (local, engine):
        examiner = make_examiner(Policy(), engine=each)
        turns = make_turns(each, examiner)
        results = turns.run([TurnRequest(turn, GREEDY) for turn in ALL])
        found.append([result.verdicts[0].p_unsafe for result in results])
        assert all(tokens(result) for result in results)
    assert found[1] == pytest.approx(found[0], abs=1e-3)


QUESTION = turn_of("cliff_edge.jpg", "Can I jump from here?")


def seconds(turns: GuardedTurns, many: int) -> float:
    """Return the median time of so many turns at once, of ten tries."""
    taken = []
    for _ in range(10):
        began = time.monotonic()
        for result in turns.run([TurnRequest(QUESTION, GREEDY)] * many):
            assert tokens(result)
        taken.append(time.monotonic() - began)
    return sorted(taken)[len(taken) // 2]


def test_a_guided_answer_takes_the_steps_of_its_tokens(engine, server, capsys) -> None:
    guided, plain = turns_on(engine, "guarded", 0.95), unguarded(engine, Admission.unlimited())
    judged = make_turns(
        engine, make_examiner(Policy.load({"judge": {"cache_size": 0}}), engine=engine)
    )
    for turns in (guided, plain, judged):
        turns.run([TurnRequest(QUESTION, GREEDY)])
    before = server.steps()
    (result,) = guided.run([TurnRequest(QUESTION, GREEDY)])
    time.sleep(0.3)
    steps, written = server.steps() - before, len(tokens(result))
    same = tokens(plain.run([TurnRequest(QUESTION, GREEDY)])[0])
    with capsys.disabled():
        print(f"\n{steps} engine steps for {written} tokens (plain: {len(same)})")
        for many in (1, 8, 16):
            times = [seconds(turns, many) for turns in (plain, guided, judged)]
            shown = ", ".join(f"{1000 * t:.0f} ms ({t / times[0]:.2f} x)" for t in times)
            print(f"{many} at once: plain, guided, judged and guided: {shown}")
    assert steps <= written + 3
