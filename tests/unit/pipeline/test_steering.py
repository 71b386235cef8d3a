"""From a finding to how the answer is steered."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from safecode_guard.engines.delegate import DelegateEngine
from safecode_guard.errors import LogitsUnavailable
from safecode_guard.models.protocol import Needs, Sampling
from safecode_guard.pipeline.case import Case
from safecode_guard.pipeline.examiner import Finding
from safecode_guard.pipeline.rules import Decision
from safecode_guard.pipeline.steering import Steering
from safecode_guard.steering.plain import Plain
from safecode_guard.steering.trace import Traced
from safecode_guard.steering.verdict_prompt import NOTES, VerdictPrompt
from safecode_guard.testing import ScriptedServer, ScriptedVLM
from safecode_guard.verdict import Judgement
from tests.unit.pipeline.serving import HELP, request, turn


class Push:
    steps = 3
    second = None
    max_tokens = None

    def done(self, so_far):
        return False

    def adjust(self, step):
        return step.logits[0]


@dataclass
class Noting:
    """Notes its context, and does what it is told."""

    plan: Any = None
    id: str = "noting"
    needs: Needs = field(default_factory=lambda: Needs(views=2))
    context: Any = None

    def prepare(self, context):
        self.context = context
        return self.plan

    def record(self, context):
        return {"certainty": context.certainty}


def case(label="unsafe", p=0.9, **fields) -> Case:
    judgement = Judgement(judge_id="t", prompt_version="1", p_unsafe=p)
    return Case(0, request(**fields), Finding(Decision(label, "guide"), judgement))


def steering(strategy, engine=None, seed=5) -> Steering:
    return Steering(engine or ScriptedVLM(HELP), strategy, seed=seed)


def test_the_context_is_the_finding_the_turn_and_the_engine():
    strategy, engine, asked = Noting(), ScriptedVLM(HELP), case()
    steering(strategy, engine).prepare(asked)
    context = strategy.context
    assert (context.label, context.direction) == ("unsafe", "boost")
    assert context.certainty == pytest.approx(0.8)
    assert context.judgement is asked.finding.judgement
    assert context.turn is asked.request.turn
    assert (context.vocabulary, context.family) == (engine.vocabulary, engine.family)
    assert context.working_size(asked.request.turn.pixels[0]) == (24, 16)


@pytest.mark.parametrize(("given", "seed"), [(None, 5), (0, 0), (9, 9)])
def test_the_callers_seed_goes_before_the_policys(given, seed):
    strategy = Noting(Push())
    record = steering(strategy).prepare(case(sampling=Sampling(seed=given)))
    assert strategy.context.seed == record.seed == seed


def test_a_logits_strategy_is_set_with_its_needs_and_recorded():
    push, asked = Push(), case()
    record = steering(Noting(push)).prepare(asked)
    assert (asked.strategy, asked.needs, asked.turn) == (push, Needs(views=2), None)
    assert (record.strategy, record.steps) == ("noting", 3)
    assert record.parameters == {"certainty": pytest.approx(0.8)}
    assert asked.record == record.model_dump(mode="json")


def test_a_plan_edits_the_turn_and_steers_no_token():
    asked = case()
    record = steering(VerdictPrompt()).prepare(asked)
    assert asked.strategy is None
    assert asked.turn.messages[0].text == NOTES["boost"]
    assert (record.strategy, record.steps) == ("verdict_prompt", 0)


def test_a_turn_that_is_left_alone_has_no_record():
    asked = case()
    assert steering(Plain()).prepare(asked) is None
    assert (asked.strategy, asked.turn, asked.record) == (None, None, None)


def test_a_trace_is_kept_on_demand_where_logits_are_in_reach():
    asked = case(trace=True)
    steering(Noting(Push())).prepare(asked)
    assert isinstance(asked.strategy, Traced)
    behind = case(trace=True)
    steering(Noting(Push()), ScriptedServer(ScriptedVLM(HELP))).prepare(behind)
    assert not isinstance(behind.strategy, Traced)


def test_without_tokens_or_a_judgement_there_is_nothing_to_steer_by():
    with pytest.raises(LogitsUnavailable, match="nothing to steer by"):
        steering(Noting(), DelegateEngine(None)).prepare(case())
    unjudged = Case(0, request(), Finding(Decision(None, "guide")))
    with pytest.raises(LogitsUnavailable):
        steering(Noting()).prepare(unjudged)


def test_whatever_a_strategy_raises_goes_through():
    class Broken(Noting):
        def prepare(self, context):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        steering(Broken()).prepare(case())


def test_a_probe_asks_the_engine_greedily_one_turn_after_another():
    engine = ScriptedVLM(lambda scene: {scene.question: 0.5, "x": 0.0})
    noting = Noting()
    steering(noting, engine).prepare(case())
    probe = noting.context.probe
    first, second = probe([turn("one"), turn("two")], max_tokens=3)
    assert (first.text, second.text) == ("one", "two")
    assert len(first.tokens) == 3
    assert first.hidden is None
    (read,) = probe([turn("one")], max_tokens=3, hidden_layer=-1)
    assert read.hidden.shape[0] == 3


def test_a_probe_that_fails_is_the_strategys_error():
    noting = Noting()
    steering(noting, ScriptedVLM(error=RuntimeError("down"))).prepare(case())
    with pytest.raises(RuntimeError, match="down"):
        noting.context.probe([turn()])
