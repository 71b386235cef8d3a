"""Judges that ask others: who is asked, what decides, and that no failure becomes a pass."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safecode_guard.errors import JudgeError, PolicyError
from safecode_guard.judges.combine import CascadeJudge, EnsembleJudge, FallbackJudge
from safecode_guard.judges.factory import make_judge
from safecode_guard.judges.failsafe import run_judge
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.protocol import Judge, JudgeRequest
from safecode_guard.policy import Policy
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from safecode_guard.verdict import Judgement

Make = Callable[..., JudgeRequest]


def scripted(*answers: Any) -> list[ScriptedJudge]:
    return [ScriptedJudge(answer, id=f"j{i}") for i, answer in enumerate(answers)]


def asked(members: list[ScriptedJudge]) -> list[int]:
    return [len(member.requests) for member in members]


def found(judge: Judge, request: JudgeRequest, *, asynchronous: bool = False) -> Judgement:
    if asynchronous:
        return asyncio.run(judge.ajudge(request))
    return run_judge(judge, request)


both_ways = pytest.mark.parametrize("asynchronous", [False, True])


@both_ways
@pytest.mark.parametrize(
    ("answers", "counts", "p"),
    [
        ((0.05, 0.9), [1, 0], 0.05),
        ((0.95, 0.1), [1, 0], 0.95),
        ((0.5, 0.9), [1, 1], 0.9),
        ((0.2, 0.1), [1, 1], 0.1),
        ((JudgeError("down"), 0.1), [1, 1], 0.1),
        (("undecided", 0.9), [1, 1], 0.9),
        ((0.5, 0.6, 0.97), [1, 1, 1], 0.97),
    ],
)
def test_a_cascade_asks_on_where_it_is_not_sure(
    request_for: Make, answers: Any, counts: list[int], p: float, asynchronous: bool
) -> None:
    members = scripted(*answers)
    judgement = found(CascadeJudge(members), request_for(), asynchronous=asynchronous)
    assert judgement.p_unsafe == p
    assert asked(members) == counts
    assert judgement.members == tuple(f"j{i}" for i in range(sum(counts)))
    assert judgement.decided.startswith(f"j{sum(counts) - 1}: ")


@both_ways
def test_a_fallback_asks_on_where_one_failed(request_for: Make, asynchronous: bool) -> None:
    members = scripted(JudgeError("down"), 0.5, 0.9)
    judgement = found(FallbackJudge(members), request_for(), asynchronous=asynchronous)
    assert (judgement.p_unsafe, asked(members)) == (0.5, [1, 1, 0])


@both_ways
@pytest.mark.parametrize(
    ("rule", "p"),
    [
        ("any", 0.9),
        ("majority", 1 / 3),
        ("mean", (0.1 + 0.2 + 0.9) / 3),
        ("log_odds", 1 / (1 + math.exp(-sum(math.log(x / (1 - x)) for x in (0.1, 0.2, 0.9)) / 3))),
    ],
)
def test_rules(request_for: Make, rule: Any, p: float, asynchronous: bool) -> None:
    members = scripted(0.1, 0.2, 0.9)
    judge = EnsembleJudge(members, rule=rule)
    judgement = found(judge, request_for(), asynchronous=asynchronous)
    assert judgement.p_unsafe == pytest.approx(p)
    assert asked(members) == [1, 1, 1]
    assert judgement.decided == f"j2: {rule} of 3"


@both_ways
def test_a_member_in_two_places_counts_in_both(request_for: Make, asynchronous: bool) -> None:
    twice, once = scripted(0.5, 0.0)
    judge = EnsembleJudge([twice, once, twice], rule="mean", weights=[1, 6, 1])
    judgement = found(judge, request_for(), asynchronous=asynchronous)
    assert judgement.p_unsafe == pytest.approx(0.125)
    assert judgement.members == ("j0", "j1", "j0")


def test_weights_count(request_for: Make) -> None:
    judge = EnsembleJudge(scripted(0.0, 1.0), rule="mean", weights=[3, 1])
    assert found(judge, request_for()).p_unsafe == 0.25


def test_a_tie_is_undecided(request_for: Make) -> None:
    judgement = found(EnsembleJudge(scripted("safe", "unsafe"), rule="majority"), request_for())
    assert judgement.label == "undecided"


ANSWERS = st.one_of(
    st.floats(0, 1),
    st.sampled_from(["safe", "unsafe", "undecided"]),
    st.just(JudgeError("down")),
    st.just(None),
)


@settings(deadline=None)
@given(
    st.lists(ANSWERS, min_size=2, max_size=4),
    st.sampled_from(["any", "majority", "mean", "log_odds"]),
)
def test_a_missing_answer_is_never_outvoted_into_a_pass(answers: list[Any], rule: Any) -> None:
    from tests.families import ask

    members = scripted(*(JudgeError("none") if a is None else a for a in answers))
    judgement = found(EnsembleJudge(members, rule=rule), JudgeRequest.of_turn(ask("Hello!")))
    failed = any(a is None or isinstance(a, Exception) for a in answers)
    if failed:
        assert judgement.failed is not None or judgement.p_unsafe > 0.5
    else:
        assert judgement.failed is None
        assert 0 <= judgement.p_unsafe <= 1


@pytest.mark.parametrize("make", [CascadeJudge, FallbackJudge, EnsembleJudge])
def test_if_all_fail_the_check_failed(request_for: Make, make: Any) -> None:
    judgement = found(make(scripted(JudgeError("a"), KeyError("b"))), request_for())
    assert judgement.failed
    assert judgement.p_unsafe is None


def test_enough_answers_are_enough(request_for: Make) -> None:
    judge = EnsembleJudge(scripted(0.1, JudgeError("down"), 0.2), rule="mean", needed=2)
    assert found(judge, request_for()).p_unsafe == pytest.approx(0.15)


def test_a_batch_asks_each_member_once_about_what_it_has_to_see(request_for: Make) -> None:
    vlm = ScriptedVLM(p_unsafe=0.5)
    first, second = LabelLogitsJudge(vlm), ScriptedJudge(0.9)
    judge = CascadeJudge([first, second])
    judgements = judge.judge_many([request_for() for _ in range(3)])
    assert [j.p_unsafe for j in judgements] == [0.9] * 3
    assert [kind for kind, _, _ in vlm.calls] == ["prefill"]
    assert len(second.requests) == 3


def test_identity_follows_members_and_rule() -> None:
    ids = {
        CascadeJudge(scripted(0.1, 0.2)).id,
        CascadeJudge(scripted(0.1, 0.2), band=(0.3, 0.7)).id,
        CascadeJudge([ScriptedJudge(id="other"), *scripted(0.1)]).id,
        FallbackJudge(scripted(0.1, 0.2)).id,
        EnsembleJudge(scripted(0.1, 0.2)).id,
        EnsembleJudge(scripted(0.1, 0.2), rule="mean").id,
    }
    assert len(ids) == 6
    assert isinstance(CascadeJudge(scripted(0.1, 0.2)), Judge)


def test_closing_closes_all() -> None:
    closed: list[str] = []

    class Closing(ScriptedJudge):
        def close(self) -> None:
            closed.append(self.id)

    FallbackJudge([Closing(id="a"), Closing(id="b")]).close()
    assert closed == ["a", "b"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: CascadeJudge(scripted(0.1)),
        lambda: CascadeJudge([ScriptedJudge(), object()]),
        lambda: CascadeJudge(scripted(0.1, 0.2), band=(0.8, 0.2)),
        lambda: EnsembleJudge(scripted(0.1, 0.2), weights=[1]),
        lambda: EnsembleJudge(scripted(0.1, 0.2), weights=[1, -1]),
        lambda: EnsembleJudge(scripted(0.1, 0.2), weights=[0, 0]),
        lambda: EnsembleJudge(scripted(0.1, 0.2), weights=[1, math.nan]),
        lambda: EnsembleJudge(scripted(0.1, 0.2), weights=[math.nan, 1]),
        lambda: EnsembleJudge(scripted(0.1, 0.2), weights=[1, math.inf]),
        lambda: EnsembleJudge(scripted(0.1, 0.2), weights=[1e308, 1e308]),
        lambda: EnsembleJudge(scripted(0.1, 0.2), needed=3),
    ],
)
def test_what_cannot_be_combined_is_told_at_once(make: Callable[[], Any]) -> None:
    with pytest.raises(PolicyError):
        make()


def test_a_policy_nests_them() -> None:
    inner = {"kind": "ensemble", "rule": "any", "members": [{"kind": "same_model"}] * 2}
    policy = Policy.load(
        {
            "judge": {
                "kind": "cascade",
                "band": [0.3, 0.7],
                "members": [{"kind": "same_model"}, inner],
            }
        }
    )
    judge = make_judge(policy.judge, engine=ScriptedVLM(p_unsafe=0.5))
    assert isinstance(judge, CascadeJudge)
    assert isinstance(judge.members[1], EnsembleJudge)
    assert policy.digest() != policy.updated(judge={"kind": "same_model"}).digest()
