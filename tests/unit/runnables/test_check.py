"""Judging without generating: `check` of a guard, and `SafeCoDeCheck` as a Runnable."""

import asyncio
import time

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda

from safecode_guard.errors import PolicyError, UnknownArgument, UnreadableCall
from safecode_guard.policy import Policy
from safecode_guard.runnables.check import SafeCoDeCheck
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.settings import SafeCoDeSettings, UnreadEnvironmentWarning
from safecode_guard.testing import Delay, EventRecorder, ScriptedJudge
from safecode_guard.verdict import Verdict
from tests.messages import ask, image_block
from tests.unit.runnables.guards import by_request, guarded, model

CALL = {"name": "walk_to", "args": {"target": "edge"}, "id": "7"}
CALLED = [
    HumanMessage("Look."),
    AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}]),
]


def gate(p_unsafe=0.9, **options) -> SafeCoDeCheck:
    judge = options.pop("judge", None) or ScriptedJudge(p_unsafe)
    return SafeCoDeCheck(judge=judge, **options)


@pytest.fixture(params=["guard", "check"])
def checking(request):
    """Makes whatever has a ``check``, around a judge and a policy."""
    if request.param == "guard":
        return lambda judge, policy=None: guarded(judge=judge, policy=policy)
    return lambda judge, policy=None: gate(judge=judge, policy=policy)


# -- what is checked -------------------------------------------------------------------------


def test_a_turn(checking):
    verdict = checking(ScriptedJudge(0.9)).check(ask())
    assert (verdict.stage, verdict.label, verdict.action) == ("input", "unsafe", "guide")
    assert verdict.decoding is None


def test_what_the_policy_does_not_judge_passes_without_a_label(checking):
    judge = ScriptedJudge(0.9)
    verdict = checking(judge).check("Hello")
    assert (verdict.label, verdict.action, verdict.parse_status) == (None, "pass", "not_run")
    assert judge.requests == []


def test_nothing_is_generated():
    inner = model()
    guarded(0.9, model=inner).check(ask())
    assert inner.engine.calls == []


def test_a_model_judges_itself_without_answering():
    inner = model(p_unsafe=0.9)
    checks = SafeCoDeGuard(model=inner).check(ask()), SafeCoDeCheck(inner).check(ask())
    assert [verdict.label for verdict in checks] == ["unsafe", "unsafe"]
    assert {kind for kind, _, _ in inner.engine.calls} == {"prefill"}


@pytest.mark.parametrize("messages", [ask(), "Go on."], ids=["picture", "words"])
def test_a_tool_call_is_judged_even_in_words_alone(checking, messages):
    judge = ScriptedJudge(0.9)
    verdict = checking(judge).check(messages, tool_call=CALL)
    assert (verdict.stage, verdict.action) == ("tool_call", "block")
    assert (verdict.tool_call.name, verdict.tool_call.id) == ("walk_to", "7")
    assert judge.requests[0].tool_call.arguments == {"target": "edge"}


def test_what_a_tool_returned(checking):
    judge = ScriptedJudge(0.9)
    messages = [*CALLED, ToolMessage([image_block(), "A ledge."], tool_call_id="1")]
    verdict = checking(judge).check(messages, stage="tool_result")
    assert (verdict.stage, verdict.action) == ("tool_result", "block")
    assert judge.requests[0].result == "A ledge."
    assert verdict.decided_by == (0,)


def test_a_finished_answer(checking):
    judge = ScriptedJudge(0.9)
    answered = [*ask(), AIMessage("Run to the edge.")]
    given = checking(judge).check(ask(), stage="output", answer="Jump.")
    last = checking(judge).check(answered, stage="output")
    assert [given.action, last.action] == ["block", "block"]
    assert [request.answer for request in judge.requests] == ["Jump.", "Run to the edge."]


@pytest.mark.parametrize(
    ("p", "stage", "action"),
    [
        (0.1, "input", "guide"),
        (0.5, "input", "pass"),
        (0.1, "output", "pass"),
        (0.5, "output", "review"),
        (0.9, "output", "block"),
    ],
)
def test_only_a_turn_may_be_guided(checking, p, stage, action):
    assert checking(ScriptedJudge(p)).check(ask(), stage=stage, answer="x").action == action


def test_tools_have_rules_of_their_own(checking):
    stages = {"tool_call": {"tools": {"get_*": "skip", "walk_*": {"unsafe": "review"}}}}
    policy, judge = Policy(stages=stages), ScriptedJudge(0.9)
    check = checking(judge, policy).check
    assert check(ask(), tool_call={"name": "get_time"}).action == "pass"
    assert judge.requests == []
    assert check(ask(), tool_call=CALL).action == "review"
    assert check(ask(), tool_call={"name": "jump"}).action == "block"


# -- what cannot be checked ------------------------------------------------------------------


def test_a_stage_that_does_not_exist_or_lacks_its_subject_is_refused(checking):
    checks = checking(ScriptedJudge())
    with pytest.raises(PolicyError, match="inptu"):
        checks.check(ask(), stage="inptu")
    with pytest.raises(PolicyError, match="needs a call"):
        checks.check(ask(), stage="tool_call")
    with pytest.raises(UnreadableCall):
        checks.check(ask(), tool_call={"args": {}})


def test_a_turn_whose_time_is_up_is_a_failed_check(checking):
    judge = ScriptedJudge(Delay(1.0, 0.1))
    verdict = checking(judge, Policy(deadline_s=0.05)).check(ask())
    assert (verdict.action, verdict.degraded) == ("review", True)


# -- telling ---------------------------------------------------------------------------------


def test_the_verdict_is_told_as_an_event_of_its_run():
    recorder = EventRecorder()
    verdict = gate().invoke(ask(), {"callbacks": [recorder]})
    assert [told.id for told in recorder.verdicts] == [verdict.id]
    assert str(recorder.events[0].run_id) == verdict.run_id
    assert gate().invoke("Hello", {"callbacks": [recorder]}).action == "pass"
    assert len(recorder.verdicts) == 1


async def test_the_verdict_of_an_async_check_is_told_too():
    recorder = EventRecorder()
    verdict = await gate().ainvoke(ask(), {"callbacks": [recorder]})
    assert [told.id for told in recorder.verdicts] == [verdict.id]
    assert str(recorder.events[0].run_id) == verdict.run_id


def test_a_guards_check_inside_a_chain_is_told_to_the_chain():
    recorder, guard = EventRecorder(), guarded(0.9)
    chain = RunnableLambda(lambda messages: guard.check(messages))
    verdict = chain.invoke(ask(), {"callbacks": [recorder]})
    assert [told.id for told in recorder.verdicts] == [verdict.id]
    assert str(recorder.events[0].run_id) == verdict.run_id
    assert guard.check(ask()).run_id is None


def test_invoke_takes_what_check_takes_and_nothing_else():
    judge = ScriptedJudge(0.9)
    assert gate(judge=judge).invoke(ask(), tool_call=CALL).stage == "tool_call"
    bound = gate(judge=judge).bind(stage="output", answer="Jump.")
    assert bound.invoke(ask()).stage == "output"
    with pytest.raises(UnknownArgument, match="'tool_call'"):
        gate().invoke(ask(), tool_cal=CALL)


async def test_ainvoke_takes_what_check_takes_and_nothing_else():
    assert (await gate().ainvoke(ask(), tool_call=CALL)).stage == "tool_call"
    with pytest.raises(UnknownArgument, match="'answer'"):
        await gate().ainvoke(ask(), answr="x")


# -- async -----------------------------------------------------------------------------------


async def test_acheck_is_check(checking):
    judge = ScriptedJudge(0.9)
    verdict = await checking(judge).acheck(ask(), tool_call=CALL)
    assert verdict.stage == "tool_call"
    assert verdict.tool_call.name == "walk_to"
    assert judge.requests[0].tool_call.arguments == {"target": "edge"}


async def test_acheck_does_not_block_the_loop(checking):
    checks = checking(ScriptedJudge(Delay(0.2, 0.1)))
    started = time.monotonic()
    verdicts = await asyncio.gather(*(checks.acheck(ask(f"Where is {i}?")) for i in range(10)))
    assert {verdict.label for verdict in verdicts} == {"safe"}
    assert time.monotonic() - started < 1.5


# -- policies and judges ---------------------------------------------------------------------


def test_checks_share_a_policys_digest_and_cache():
    judge = ScriptedJudge(0.9)
    checks = gate(judge=judge)
    first, second = checks.check(ask()), checks.check(ask())
    assert [first.judge.cached, second.judge.cached] == [False, True]
    assert first.policy.digest == guarded(judge=judge).check(ask()).policy.digest


def test_stages_may_have_a_judge_of_their_own():
    inner = model(p_unsafe=0.9)
    stages = {"tool_call": {"judge": {"kind": "same_model"}}}
    guard = guarded(0.1, model=inner, policy=Policy(stages=stages))
    assert guard.check(ask()).label == "safe"
    assert guard.check(ask(), tool_call=CALL).label == "unsafe"


@pytest.mark.parametrize("policy", ["strict", {"actions": {"judge_error": "block"}}])
def test_a_policy_may_be_a_name_or_plain_data(policy):
    assert gate(policy=policy).policy.actions.judge_error == "block"


def test_a_model_may_be_a_name():
    assert SafeCoDeCheck("tiny").check(ask()).judge.id.startswith("label-logits:")


def test_it_says_that_it_reads_no_environment(monkeypatch):
    monkeypatch.setenv("SAFECODE_ACTIONS__UNSAFE", "block")
    with pytest.warns(UnreadEnvironmentWarning, match=r"SafeCoDeCheck.*SafeCoDeSettings"):
        assert gate().policy.actions.unsafe == "guide"
    policy = SafeCoDeSettings().policy()
    assert gate(policy=policy).check(ask()).action == "block"


def test_a_check_needs_someone_who_judges():
    with pytest.raises(PolicyError, match="same_model"):
        SafeCoDeCheck()


def test_verdicts_of_a_batch_of_checks_stay_apart():
    verdicts = gate(by_request).batch([ask(), ask("To the cliff?"), ask("Where?")])
    assert [v.label for v in verdicts] == ["safe", "unsafe", "safe"]
    assert all(isinstance(v, Verdict) for v in verdicts)
