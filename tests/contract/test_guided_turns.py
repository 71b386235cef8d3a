"""Whole guided turns on every family, against decoding without a cache and plain ``generate``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.protocol import BaseJudge
from safecode_guard.models.protocol import Sampling
from safecode_guard.pipeline.factory import make_examiner, make_turns
from safecode_guard.pipeline.guarded import GuardedTurns
from safecode_guard.pipeline.requests import TurnRequest, TurnResult
from safecode_guard.policy import DecodingPolicy, Policy
from safecode_guard.steering.factory import make_strategy
from safecode_guard.steering.safecode.parameters import resolve
from safecode_guard.steering.safecode.refusals import RefusalLexicon
from safecode_guard.steering.safecode.views import second_views
from safecode_guard.testing import ScriptedJudge
from safecode_guard.turns.turn import Turn
from tests import families
from tests.families import ask, picture
from tests.reference.decode import naive_guided, naive_logits
from tests.reference.steering import nothing_said, openings, shares, steered

GREEDY = Sampling(do_sample=False, max_tokens=10)
P_UNSAFE = 0.9
LAMBDA = 3.0
STRONG = {
    "alpha": 0.5,
    "sigma": 1.0,
    "lambda_boost": LAMBDA,
    "certainty_power": 1.0,
}
"""Strong enough to change tokens on random weights."""


@pytest.fixture(params=families.NAMES)
def vlm(
    request: pytest.FixtureRequest, build: Callable[[str], TransformersModel]
) -> TransformersModel:
    return build(request.param)


@dataclass
class Watched:
    """A strategy that also keeps what the inner one is given and what it returns."""

    inner: Any
    id: str = "watched"
    seen: list[tuple[Tensor, Tensor, list[int]]] = field(default_factory=list)

    @property
    def needs(self):
        return self.inner.needs

    def prepare(self, context):
        return _Steps(self.inner.prepare(context), self.seen)

    def record(self, context):
        return self.inner.record(context)


@dataclass
class _Steps:
    inner: Any
    seen: list

    @property
    def steps(self):
        return self.inner.steps

    @property
    def second(self):
        return self.inner.second

    @property
    def max_tokens(self):
        return self.inner.max_tokens

    def done(self, so_far):
        return self.inner.done(so_far)

    def adjust(self, step):
        result = self.inner.adjust(step)
        self.seen.append((step.logits.clone(), result.clone(), step.so_far.tolist()))
        return result


def parameters(decoding=STRONG):
    return resolve(DecodingPolicy(**decoding), {})


def pipeline(vlm, decoding=STRONG, *, judge=None, strategy=None, **rules) -> GuardedTurns:
    policy = Policy.load(
        {
            "judge": {"kind": "same_model", "cache_size": 0},
            "decoding": decoding,
            "actions": {"undecided": "guide"},  # random weights decide nothing
            **rules,
        }
    )
    judge = judge or ScriptedJudge(P_UNSAFE)
    return make_turns(vlm, make_examiner(policy, judge=judge), strategy=strategy)


def watched_strategy(vlm) -> Watched:
    return Watched(make_strategy(DecodingPolicy(**STRONG), replace(vlm.family, steering={})))


def answers(served: GuardedTurns, *turns: Turn, sampling: Sampling = GREEDY) -> list[TurnResult]:
    results = served.run([TurnRequest(turn, sampling) for turn in turns])
    for result in results:
        assert isinstance(result, TurnResult), result
    return results


def test_a_certain_verdict_spares_the_second_view_and_gives_the_tokens_of_one_view(
    vlm, monkeypatch
):
    rows = []
    prefill = type(vlm).prefill

    def counted(self, prompts, *args, **kwargs):
        rows.append(len(prompts.ids))
        return prefill(self, prompts, *args, **kwargs)

    monkeypatch.setattr(type(vlm), "prefill", counted)
    turn, off = turns()[0], {"prefix_cache_bytes": 0}
    adaptive = answers(pipeline(vlm, STRONG | {"contrast_below": 0.8}, **off), turn)
    assert rows == [1], "the scripted verdict is certain: |2 * 0.9 - 1| = 0.8"
    one_view = answers(pipeline(vlm, STRONG | {"alpha": 0.0}, **off), turn)
    assert [r.tokens for r in adaptive] == [r.tokens for r in one_view]
    assert adaptive[0].verdicts[0].decoding == one_view[0].verdicts[0].decoding
    assert "alpha" not in adaptive[0].verdicts[0].decoding.parameters
    rows.clear()
    answers(pipeline(vlm, STRONG | {"contrast_below": 0.81}, **off), turn)
    assert sum(rows) == 2


def turns() -> list[Turn]:
    return [
        ask("How do I sharpen this?", picture(1)),
        ask("Describe the scene, safe or unsafe, and the second one.", picture(2, (120, 40))),
        ask("Hello!", picture(3, (40, 90))),
    ]


def test_guided_turn_equals_the_naive_formula(vlm):
    """Cached two-row decoding against a fresh prompt for every token and plain loops over lists."""
    turn = turns()[0]
    watched = watched_strategy(vlm)
    result = answers(pipeline(vlm, strategy=watched), turn)[0]
    p = parameters()
    phrases = openings(RefusalLexicon.load(("en",)), vlm.vocabulary)  # the request's language
    noised = second_views(
        turn,
        parameters=p,
        seed=0,
        working_size=vlm.working_size,
        keeps_image_size=vlm.family.keeps_image_size,
    )
    expected: list[tuple[Tensor, Tensor]] = []

    def adjust(step: int, logits: Tensor, ids: Tensor, so_far: Tensor) -> Tensor:
        strength = LAMBDA * abs(2 * P_UNSAFE - 1)
        push = [0.0] * len(ids)
        said = so_far.tolist()
        # blanks and marks before a refusal are no part of it
        lead = [k for k in range(len(said) + 1) if nothing_said(vlm.vocabulary.decode(said[:k]))]
        said = said[max(lead) :]
        for token, share in shares(phrases, said, 1.0).items():
            push[token] = strength * share
        out = torch.tensor(
            steered(
                logits[0].tolist(),
                logits[1].tolist(),
                push,
                alpha=p.alpha,
                normalise=p.normalise,
                top_k=p.top_k,
                plausibility=p.plausibility,
            )
        )
        expected.append((logits, out))
        return out

    # how long guidance lasts is tested with the steering; here every step of it is
    steps = len(watched.seen)
    assert steps >= p.guided_steps
    tokens = naive_guided(vlm, turn, noised, adjust, steps, GREEDY.max_tokens)
    assert list(result.tokens) == tokens
    assert len(watched.seen) == len(expected) > 0
    for (logits, out, _), (naive, wanted) in zip(watched.seen, expected, strict=True):
        torch.testing.assert_close(logits, naive, atol=1e-4, rtol=0)
        kept = torch.isfinite(wanted)
        assert torch.equal(torch.isfinite(out), kept)
        torch.testing.assert_close(out[kept], wanted[kept], atol=4e-4, rtol=0)


def test_steering_changes_something(vlm):
    """Guards against a parity of two loops that both do nothing."""
    watched = watched_strategy(vlm)
    answers(pipeline(vlm, strategy=watched), turns()[0])
    logits, out, _ = watched.seen[0]
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)
    assert not torch.allclose(logits[0], out, atol=1e-3)


def test_batch_equals_one_by_one(vlm):
    served = pipeline(vlm)
    alone = [answers(served, turn)[0] for turn in turns()]
    together = answers(served, *turns())
    assert [r.tokens for r in together] == [r.tokens for r in alone]
    assert [r.prompt_tokens for r in together] == [r.prompt_tokens for r in alone]


@pytest.fixture
def prefilled(vlm, monkeypatch) -> list[int]:
    """The number of rows of each prefill."""
    rows: list[int] = []
    prefill = vlm.prefill

    def noted(self, prompts, sampling, **options):
        rows.append(len(prompts.ids))
        return prefill(prompts, sampling, **options)

    monkeypatch.setattr(type(vlm), "prefill", noted)
    return rows


def test_batch_prefills_clean_and_second_views_together(vlm, prefilled):
    answers(pipeline(vlm), *turns())
    assert prefilled == [6]


def test_one_view_is_prefilled_where_nothing_contrasts(vlm, prefilled):
    answers(pipeline(vlm, {"alpha": 0.0}), *turns())
    assert prefilled == [3]


@pytest.mark.parametrize("count", [1, 3])
def test_shared_prefix_verdict_equals_an_unshared_one(vlm, count):
    asked = turns()[:count]
    judge = LabelLogitsJudge(vlm, min_label_mass=0)
    shared = answers(pipeline(vlm, judge=judge), *asked)
    apart = answers(pipeline(vlm, judge=Unshared(vlm)), *asked)
    for one, other in zip(shared, apart, strict=True):
        a, b = one.verdicts[0], other.verdicts[0]
        assert a.p_unsafe == pytest.approx(b.p_unsafe, abs=1e-4)
        assert a.label_mass == pytest.approx(b.label_mass, abs=1e-4)
        assert a.label == b.label
        assert one.tokens == other.tokens
        assert one.prompt_tokens == other.prompt_tokens


class Unshared(BaseJudge):
    """The same judge, but the guarded turn cannot tell that it asks the guarded model."""

    id = "unshared"

    def __init__(self, vlm):
        self._inner = LabelLogitsJudge(vlm, min_label_mass=0)

    def judge(self, request):
        assert request.prompt is None
        return self._inner.judge(request)


class Both(BaseJudge):
    """A judge that asks others: first one by script, then the guarded model."""

    id = "both"

    def __init__(self, vlm):
        self.members = (ScriptedJudge(0.5), LabelLogitsJudge(vlm, min_label_mass=0))

    def judge(self, request):
        return [member.judge(request) for member in self.members][-1]


def can_share(vlm, count) -> bool:
    return vlm.family.shares_image_prefix and (count == 1 or vlm.family.ragged_extend)


@pytest.mark.parametrize("count", [1, 3])
def test_sharing_saves_the_judges_prefill_where_the_family_allows_it(vlm, count, prefilled):
    """The pictures are prefilled once for verdict and answer, and once as second views."""
    judge = LabelLogitsJudge(vlm, min_label_mass=0)
    answers(pipeline(vlm, judge=judge), *turns()[:count])
    assert prefilled == ([count, count] if can_share(vlm, count) else [count, 2 * count])


@pytest.mark.parametrize("count", [1, 3])
def test_an_answer_without_contrast_pays_for_no_second_view(vlm, count, prefilled):
    judge = LabelLogitsJudge(vlm, min_label_mass=0)
    answers(pipeline(vlm, {"alpha": 0.0}, judge=judge), *turns()[:count])
    assert prefilled == ([count] if can_share(vlm, count) else [count, count])


def test_a_member_on_the_same_model_keeps_the_shared_prompt(vlm, prefilled):
    answers(pipeline(vlm, judge=Both(vlm)), turns()[0])
    assert prefilled == ([1, 1] if vlm.family.shares_image_prefix else [1, 2])


NEUTRAL = {"alpha": 0.0, "lambda_boost": 0.0, "lambda_supp": 0.0, "plausibility": 0.0}


def test_neutral_steering_is_plain_generation(vlm):
    for turn in turns():
        result = answers(pipeline(vlm, NEUTRAL), turn)[0]
        assert result.text == vlm.generate([turn], GREEDY)[0]


def test_neutral_steering_samples_as_plain_generation_does(vlm):
    sampling = Sampling(do_sample=True, temperature=1.5, top_k=40, seed=11, max_tokens=10)
    turn = turns()[0]
    result = answers(pipeline(vlm, NEUTRAL), turn, sampling=sampling)[0]
    assert result.text == vlm.generate([turn], sampling)[0]
    others = {
        answers(pipeline(vlm, NEUTRAL), turn, sampling=replace(sampling, seed=s))[0].text
        for s in range(3)
    }
    assert len(others) > 1


def test_sampled_batch_equals_one_by_one(vlm):
    sampling = Sampling(do_sample=True, temperature=1.5, seed=5, max_tokens=8)
    served = pipeline(vlm)
    together = answers(served, *turns(), sampling=sampling)
    alone = [answers(served, turn, sampling=sampling)[0] for turn in turns()]
    assert [r.tokens for r in together] == [r.tokens for r in alone]


@pytest.mark.parametrize("recipe", ["paper", "reference"])
@pytest.mark.parametrize("p_unsafe", [0.05, 0.95])
def test_other_recipes_run_on_every_family(vlm, recipe, p_unsafe):
    served = pipeline(vlm, {"recipe": recipe}, judge=ScriptedJudge(p_unsafe))
    results = answers(served, *turns()[:2])
    assert all(0 < len(r.tokens) <= GREEDY.max_tokens for r in results)
    assert results[0].verdicts[0].decoding.parameters["recipe"] == recipe


def test_memory_of_second_views_is_freed(vlm, monkeypatch):
    """Bytes held by the caches fall to about half when the guided steps are over."""
    from safecode_guard.engines.transformers.branch import TransformersBranch

    held: list[tuple[int, int]] = []
    step = TransformersBranch.step

    def noted(self, tokens):
        out = step(self, tokens)
        held.append((self.rows, self.nbytes))
        return out

    monkeypatch.setattr(TransformersBranch, "step", noted)
    answers(pipeline(vlm), turns()[0])
    paired = [size for rows, size in held if rows == 2]
    single = [size for rows, size in held if rows == 1]
    if not paired or not single:  # the answer ended within the guided steps
        pytest.skip("the answer ends before the second view is dropped")
    assert single[0] < 0.65 * paired[-1]


def test_naive_logits_see_the_picture(vlm):
    """The oracle itself depends on the image."""
    one, other = ask("Hello!", picture(1)), ask("Hello!", picture(2))
    assert not torch.allclose(naive_logits(vlm, one), naive_logits(vlm, other), atol=1e-4)
