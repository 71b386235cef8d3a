"""What goes wrong around a pair ends in an error or in the right answer; nothing else comes out."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.errors import ModelError, ModelUnavailable, SteeringUnproven
from safecode_guard.pipeline.requests import TurnResult
from tests.vllm.conftest import PYTHON
from tests.vllm.serving import ASYNC, PROCESSOR, SCALE_OUT, Server, serving
from tests.vllm.turns import PICTURES, Meddling, answers, engine_on, tokens, turn_of

TURN = turn_of("park_path.png", "Can I jump from here?")
TURNS = [turn_of(picture, "How do I use this?") for picture in PICTURES]


@pytest.fixture(scope="module")
def right(local: TransformersModel) -> tuple[int, ...]:
    return tokens(answers(local, "guarded", 0.95, [TURN])[0])


def next_turn_is_right(server: Server, right: tuple[int, ...]) -> None:
    with closing(engine_on(server)) as engine:
        assert tokens(answers(engine, "guarded", 0.95, [TURN])[0]) == right


def test_without_the_plugin_nothing_comes_out(bare: Server) -> None:
    with closing(engine_on(bare)) as engine:
        for result in answers(engine, "guarded", 0.95, TURNS):
            assert isinstance(result, SteeringUnproven), result


def test_under_the_default_scheduler_an_answer_is_right_or_none(
    unscheduled: Server, local: TransformersModel, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = [tokens(answers(local, "guarded", 0.95, [turn])[0]) for turn in TURNS]
    with closing(engine_on(unscheduled)) as engine:
        results = [answers(engine, "guarded", 0.95, [turn])[0] for turn in TURNS * 2]
    given = [r for r in results if isinstance(r, TurnResult)]
    for result, expected in zip(results, wanted * 2, strict=True):
        assert isinstance(result, SteeringUnproven) or tokens(result) == expected
    with capsys.disabled():
        print(f"\n{len(given)} right and {len(results) - len(given)} refused, 0 wrong")


@pytest.mark.parametrize("role", ["main", "twin"])
def test_a_lost_half_is_an_error_in_time(server: Server, right, role: str) -> None:
    with closing(engine_on(server, Meddling(lose=role), timeout_s=4)) as engine:
        (result,) = answers(engine, "guarded", 0.95, [TURN])
    assert isinstance(result, ModelUnavailable)
    next_turn_is_right(server, right)


def test_a_twin_that_is_ten_seconds_late_changes_nothing(server: Server, right) -> None:
    with closing(engine_on(server, Meddling(delay_s=10))) as engine:
        assert tokens(answers(engine, "guarded", 0.95, [TURN])[0]) == right


@pytest.mark.parametrize("after_s", [0.01, 0.05, 0.1, 0.2])
def test_a_cancelled_answer_leaves_nothing_behind(server: Server, right, after_s: float) -> None:
    with closing(engine_on(server)) as engine:
        engine.probe()
        thread = threading.Thread(target=answers, args=(engine, "guarded", 0.95, [TURN]))
        thread.start()
        time.sleep(after_s)
    thread.join(20)
    assert not thread.is_alive()
    next_turn_is_right(server, right)


@pytest.mark.parametrize("role", ["main", "twin"])
def test_a_forged_half_ends_no_answer_wrongly(server: Server, right, role: str) -> None:
    for _ in range(3):
        with closing(engine_on(server, Meddling(forge=role), timeout_s=20)) as engine:
            (result,) = answers(engine, "guarded", 0.95, [TURN])
        assert isinstance(result, ModelError) or tokens(result) == right
    next_turn_is_right(server, right)


def test_a_server_killed_in_the_middle_is_an_error(folder, right) -> None:
    ends: list[object] = []
    with (
        serving(PYTHON, folder, [*SCALE_OUT, *PROCESSOR, *ASYNC]) as doomed,
        closing(engine_on(doomed)) as engine,
    ):
        engine.probe()

        def ask() -> None:
            for _ in range(20):
                ends.extend(answers(engine, "guarded", 0.95, [TURN]))

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.5)
        doomed.kill()
        thread.join(60)
    assert not thread.is_alive()
    assert isinstance(ends[-1], ModelUnavailable)
    assert all(isinstance(end, ModelUnavailable) or tokens(end) == right for end in ends)
