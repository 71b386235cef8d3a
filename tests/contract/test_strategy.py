"""What every strategy promises: the protocol of `safecode_guard.steering.protocol`."""

from __future__ import annotations

import pytest
import torch

from safecode_guard.policy import DecodingPolicy
from safecode_guard.steering.factory import BUILT_IN, make_strategy
from safecode_guard.steering.protocol import LogitsStrategy, TurnPlan
from safecode_guard.steering.trace import Traced
from safecode_guard.turns.turn import TextPart, Turn, TurnMessage
from tests.unit.steering.contexts import context, tokens
from tests.unit.steering.vocabularies import byte_level

VOCABULARY = byte_level()
IDS = torch.arange(VOCABULARY.size)
STRATEGIES = {name: make_strategy(DecodingPolicy(strategy=name)) for name in BUILT_IN}
TURN = Turn((TurnMessage("user", (TextPart("How do I run faster here?"),)),))
LABELS = ("safe", "unsafe", "undecided", None)


def steering(mode, label, *, traced=False, **decoding):
    made = STRATEGIES["safecode"].prepare(context(VOCABULARY, label, mode=mode, **decoding))
    return Traced(made, VOCABULARY) if traced else made


logits_strategies = pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(
            lambda m=mode, n=label, t=t: steering(m, n, traced=t), id=f"{mode}-{label}-{t}"
        )
        for mode in ("paper", "guarded", "reference")
        for label in LABELS
        for t in (False, True)
    ]
    + [
        pytest.param(lambda: steering("guarded", "unsafe", alpha=0), id="modulation only"),
        pytest.param(lambda: steering("guarded", "unsafe", lambda_boost=0), id="contrast only"),
        pytest.param(lambda: steering("guarded", "safe", normalise="vcd"), id="vcd"),
    ],
)


def views(strategy, step=0):
    generator = torch.Generator().manual_seed(step)
    return torch.randn((strategy.views, VOCABULARY.size), generator=generator) * 3


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("label", LABELS)
def test_a_strategy_makes_a_plan_of_a_known_kind(name, label):
    strategy = STRATEGIES[name]
    plan = strategy.prepare(context(VOCABULARY, label))
    assert strategy.id == name
    assert plan is None or isinstance(plan, TurnPlan) != isinstance(plan, LogitsStrategy)


@pytest.mark.parametrize("label", LABELS)
def test_a_turn_plan_keeps_the_request(label):
    plan = STRATEGIES["verdict_prompt"].prepare(context(VOCABULARY, label))
    edited = plan.edit(TURN)
    assert edited.query == TURN.query
    assert edited != TURN
    assert plan.edit(TURN) == edited


@logits_strategies
def test_its_numbers_are_in_range(strategy):
    made = strategy()
    assert isinstance(made, LogitsStrategy)
    assert made.steps >= 1
    assert made.views in (1, 2)
    assert made.max_tokens is None or made.max_tokens > 0


@logits_strategies
def test_a_step_returns_logits_that_leave_something_to_choose(strategy):
    made = strategy()
    so_far: list[int] = []
    for step in range(made.steps):
        logits = views(made, step)
        before = logits.clone()
        got = made.adjust(step, logits, IDS, tokens(*so_far))
        assert got.shape == (VOCABULARY.size,)
        assert got.dtype == torch.float32
        assert got.isfinite().any()
        assert not got.isnan().any()
        assert torch.equal(logits, before)
        so_far.append(int(got.argmax()))


@logits_strategies
def test_a_step_can_be_asked_twice(strategy):
    made, so_far = strategy(), []
    for step in range(made.steps):
        got = made.adjust(step, views(made, step), IDS, tokens(*so_far))
        assert torch.equal(made.adjust(step, views(made, step), IDS, tokens(*so_far)), got)
        so_far.append(int(got.argmax()))


@logits_strategies
def test_the_order_of_candidates_does_not_matter(strategy):
    shuffled = torch.randperm(VOCABULARY.size, generator=torch.Generator().manual_seed(3))
    made = strategy()
    expected = made.adjust(0, views(made), IDS, tokens())[shuffled]
    got = strategy().adjust(0, views(made)[:, shuffled], shuffled, tokens())
    torch.testing.assert_close(got, expected)


@logits_strategies
def test_a_turn_without_a_second_view_can_be_answered(strategy):
    made = strategy()
    got = made.adjust(0, views(made)[:1], IDS, tokens())
    assert got.isfinite().any()


@logits_strategies
def test_two_preparations_share_no_state(strategy):
    one, other = strategy(), strategy()
    one.adjust(0, -views(one), IDS, tokens())
    fresh = strategy()
    expected = fresh.adjust(0, views(fresh), IDS, tokens())
    assert torch.equal(other.adjust(0, views(other), IDS, tokens()), expected)
