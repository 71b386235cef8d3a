"""Costs that do not depend on the machine are counted; times are held to wide bounds only."""

from __future__ import annotations

import json

import pytest
import torch

from safecode_guard.bench.speed.counting import row_tokens
from safecode_guard.bench.speed.naive import naive_generate
from safecode_guard.bench.speed.overhead import Overheads, measure_overheads
from safecode_guard.bench.speed.routes import ANSWER_TOKENS, SUFFIX_TOKENS, Routes
from safecode_guard.bench.speed.rows import Figure, Spent, calls_of, chosen, figure
from safecode_guard.bench.speed.run import (
    SpeedReport,
    _load,
    import_seconds,
    machine,
    main,
    table,
)
from safecode_guard.bench.timing import Timing, interleave
from safecode_guard.errors import GuardError
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.protocol import JudgeRequest
from safecode_guard.models.protocol import Sampling
from safecode_guard.pipeline.factory import make_examiner, make_turns
from safecode_guard.pipeline.requests import TurnRequest
from safecode_guard.policy import Policy, SameModelJudgeConfig
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from tests.families import ask, picture
from tests.reference.decode import naive_guided

ANSWER = "All right, here is how."
LONG = "How do I run faster here? " * 10


def positions(vlm: ScriptedVLM) -> int:
    """Token positions computed so far, over all rows."""
    return sum(tokens for _kind, _rows, tokens in vlm.calls)


def cost(judge, p_unsafe: float = 0.9) -> tuple[int, int, int]:
    """Positions of a guarded turn, its prompt tokens and its new tokens."""
    vlm = ScriptedVLM(ANSWER, p_unsafe=p_unsafe)
    policy = Policy(judge={"kind": "same_model", "cache_size": 0})
    served = make_turns(vlm, make_examiner(policy, judge=judge(vlm)))
    turn = ask(LONG, picture())
    (result,) = served.run([TurnRequest(turn, Sampling(max_tokens=64))])
    return positions(vlm), result.prompt_tokens, len(result.tokens)


def question_tokens() -> int:
    """Tokens of the judge's question that come after what it shares with the answer's prompt."""
    vlm, turn = ScriptedVLM(ANSWER), ask(LONG, picture())
    question = vlm.encode([LabelLogitsJudge(vlm).question(JudgeRequest.of_turn(turn))]).ids[0]
    answer = vlm.encode([turn]).ids[0]
    pairs = enumerate(zip(question, answer, strict=False))
    return len(question) - next(i for i, (a, b) in pairs if a != b)


def test_guiding_costs_one_prefill_and_four_rows():
    spent, prompt, new = cost(lambda vlm: ScriptedJudge(0.9))
    assert spent == 2 * prompt + (new - 1) + 4


def test_the_models_own_verdict_costs_its_question_and_no_second_prefill():
    guided, _prompt, _new = cost(lambda vlm: ScriptedJudge(0.9))
    judged, _, _ = cost(LabelLogitsJudge)
    assert judged - guided == question_tokens()


def test_a_turn_that_is_not_steered_pays_for_no_second_view():
    spent, prompt, new = cost(LabelLogitsJudge, p_unsafe=0.5)
    assert spent == prompt + question_tokens() + (new - 1)


def test_naive_decoding_gives_the_tokens_of_the_paper_formula(build):
    vlm = build("llava")
    turn, second = ask("Hello!", picture(1)), ask("Hello!", picture(2))
    tokens = naive_generate(
        vlm, turn, second, alpha=0.3, steps=5, sampling=Sampling(max_tokens=9)
    ).tolist()
    wanted = naive_guided(vlm, turn, second, lambda _, z, ids, so_far: z[0] - 0.3 * z[1], 5, 9)
    assert tokens[: len(wanted)] == wanted


def test_interleaving_takes_turns_and_leaves_a_round_out():
    order: list[str] = []
    ticks = iter(range(1000))
    timings = interleave(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")},
        rounds=2,
        clock=lambda: float(next(ticks)),
    )
    assert order == ["a", "b"] * 3
    assert len(timings["a"].seconds) == 2


def test_ratios_are_paired_by_round():
    assert Timing((2.0, 30.0, 4.0)).ratio(Timing((1.0, 10.0, 2.0))) == 2.0


def test_overheads_stay_small():
    """The aims are 2, 5 and 0.2 ms; a busy machine gets five times as much."""
    overheads = measure_overheads()
    assert 0 < overheads.check_ms < 10
    assert 0 < overheads.overhead_ms < 25
    assert 0 < overheads.cached_ms < 1


def test_import_is_quick():
    assert 0 < import_seconds(runs=3) < 0.7


def report() -> SpeedReport:
    rows = {name: Figure(1.2, 1.1, 1.3, 800, 683) for name in ("guided", "turn", "conversation")}
    overheads = Overheads(0.4, 15.0, 2.0, 0.07)
    return SpeedReport(rows, None, overheads, 0.02, 630, 64, 5, machine())


def test_the_report_names_the_machine_and_says_what_was_not_measured():
    found = report().to_json()
    assert found["machine"]["torch"] == torch.__version__
    assert (found["guided_ratio"], found["naive_ratio"], found["batch_gain"]) == (1.2, None, None)
    assert found["rows"]["conversation"]["row_tokens"] == 800
    assert table(report()).row_count == 3 + 5


def test_the_command_prints_one_object(monkeypatch, capsys):
    asked = {}
    monkeypatch.setattr(
        "safecode_guard.bench.speed.run.measure", lambda *a, **k: asked.update(k) or report()
    )
    monkeypatch.setattr("safecode_guard.bench.speed.run._load", lambda name: None)
    assert main(["--json", "--rows", "turn, guided"]) == 0
    assert json.loads(capsys.readouterr().out)["guided_ratio"] == 1.2
    assert asked["rows"] == ["guided", "turn"]


def test_rows_are_chosen_by_name():
    assert chosen(["conversation", "turn"]) == ["turn", "conversation"]
    assert chosen([])[-1] == "batch_gain"
    assert calls_of(["conversation", "turn", "batch_gain"]) == 2 + 4 + 3
    with pytest.raises(GuardError, match="no row 'trun'"):
        chosen(["trun"])


def test_sums_are_made_round_by_round():
    first, rest = Spent(Timing((1.0, 4.0)), 10), Spent(Timing((2.0, 5.0)), 20)
    whole = Spent.sum([first, rest])
    assert (whole.timing.seconds, whole.tokens) == ((3.0, 9.0), 30)
    assert figure(whole, Spent(Timing((3.0, 3.0)), 15)) == Figure(2.0, 1.0, 3.0, 30, 15)


@pytest.fixture(scope="module")
def routes() -> Routes:
    return Routes(_load(None))


def test_a_row_that_measures_another_turn_than_its_name_says_is_an_error(routes, monkeypatch):
    unsteered = Policy(judge=SameModelJudgeConfig(min_label_mass=0, cache_size=0))
    monkeypatch.setattr("safecode_guard.bench.speed.routes.policy", lambda *a, **k: unsteered)
    with pytest.raises(GuardError, match="was to end with 'guide' has 'pass', 0 steps"):
        routes.judged().guarded()


def test_row_tokens_are_counted_exactly(routes):
    (ids,) = routes.model.encode([routes.turn]).ids
    plain = len(ids) + ANSWER_TOKENS - 1
    model = routes.model.model
    assert row_tokens(model, routes.guided().plain) == plain
    assert row_tokens(model, routes.guided().guarded) == plain + len(ids) + 4
    assert row_tokens(model, routes.judged("pass").guarded) == plain + SUFFIX_TOKENS


@pytest.mark.slow
def test_cached_decoding_beats_the_released_way(routes):
    """One round on a small model: the order of the figures, not their size."""
    chosen = {
        "plain": routes.guided().plain,
        "guided": routes.guided().guarded,
        "naive": routes.naive().guarded,
    }
    timings = interleave(chosen, rounds=1)
    assert timings["guided"].ratio(timings["plain"]) < 2
    assert timings["naive"].ratio(timings["guided"]) > 1.5
