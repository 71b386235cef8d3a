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
from safecode_guard.models.protocol import Sampling
from safecode_guard.pipeline import Pipeline, TurnRequest, TurnResult, make_examiner
from safecode_guard.pipeline.admission import Turnstile
from safecode_guard.policy import Policy
from safecode_guard.steering.factory import make_strategy
from safecode_guard.steering.safecode.parameters import resolve
from safecode_guard.steering.safecode.refusals import RefusalLexicon
from safecode_guard.steering.safecode.views import second_views
from safecode_guard.testing import ScriptedJudge
from safecode_guard.turns.turn import Turn
from tests import families
from tests.families import ask, picture
from tests.reference.decode import naive_guided, naive_logits
from tests.reference.steering import openings, shares, steered

GREEDY = Sampling(do_sample=False, max_tokens=10)
P_UNSAFE = 0.9
LAMBDA = 3.0
STRONG = {"alpha": 0.5, "sigma": 1.0, "lambda_boost": LAMBDA, "certainty_power": 1.0}
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

    def prepare(self, context):
        steps = self.inner.prepare(context)
        adjust = steps.adjust
        return _Steps(steps, lambda *args: self._keep(adjust(*args), *args))

    def _keep(self, result, step, logits, ids, so_far):
        self.seen.append((logits.clone(), result.clone(), so_far.tolist()))
        return result


@dataclass
class _Steps:
    inner: Any
    adjust: Any

    @property
    def steps(self):
        return self.inner.steps

    @property
    def views(self):
        return self.inner.views

    @property
    def max_tokens(self):
        return self.inner.max_tokens


def pipeline(vlm, decoding=STRONG, *, judge=None, strategy=None) -> Pipeline:
    policy = Policy.load({"judge": {"kind": "same_model", "cache_size": 0}, "decoding": decoding})
    judge = judge or ScriptedJudge(P_UNSAFE)
    strategy = strategy or make_strategy(policy.decoding)
    return Pipeline(
        vlm,
        make_examiner(policy, judge=judge),
        strategy=strategy,
        parameters=resolve(policy.decoding, {}),
        turnstile=Turnstile(),
    )


def answers(served: Pipeline, *turns: Turn, sampling: Sampling = GREEDY) -> list[TurnResult]:
    results = served.run([TurnRequest(turn, sampling) for turn in turns])
    for result in results:
        assert isinstance(result, TurnResult), result
    return results


def turns() -> list[Turn]:
    return [
        ask("How do I sharpen this?", picture(1)),
        ask("Describe the scene, safe or unsafe, and the second one.", picture(2, (120, 40))),
        ask("Hello!", picture(3, (40, 90))),
    ]


def test_guided_turn_equals_the_naive_formula(vlm):
    """Cached two-row decoding against a fresh prompt for every token and plain loops over lists."""
    turn = turns()[0]
    watched = Watched(make_strategy(Policy().decoding))
    served = pipeline(vlm, strategy=watched)
    result = answers(served, turn)[0]
    p = served.parameters
    phrases = openings(RefusalLexicon.load(("en", "de", "fr", "es", "zh")), vlm.vocabulary)
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
        while said and vlm.vocabulary.decode(said[:1]).strip() == "":
            said = said[1:]  # blank space before a refusal is no part of it
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

    tokens = naive_guided(vlm, turn, noised, adjust, p.guided_steps, GREEDY.max_tokens)
    assert list(result.tokens) == tokens
    assert len(watched.seen) == len(expected) > 0
    for (logits, out, _), (naive, wanted) in zip(watched.seen, expected, strict=True):
        torch.testing.assert_close(logits, naive, atol=1e-4, rtol=0)
        kept = torch.isfinite(wanted)
        assert torch.equal(torch.isfinite(out), kept)
        torch.testing.assert_close(out[kept], wanted[kept], atol=4e-4, rtol=0)


def test_steering_changes_something(vlm):
    """Guards against a parity of two loops that both do nothing."""
    watched = Watched(make_strategy(Policy().decoding))
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


def test_batch_prefills_clean_and_second_views_together(vlm, monkeypatch):
    rows = []
    prefill = vlm.prefill
    monkeypatch.setattr(
        type(vlm), "prefill", lambda self, p, s: rows.append(len(p.ids)) or prefill(p, s)
    )
    answers(pipeline(vlm), *turns())
    assert rows == [6]


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


class Unshared:
    """The same judge, but the pipeline cannot tell that it is the guarded model's own."""

    id, prompt_version, gives_categories = "unshared", "1", False

    def __init__(self, vlm):
        self._inner = LabelLogitsJudge(vlm, min_label_mass=0)

    def judge(self, request):
        assert request.prefix is None
        return self._inner.judge(request)

    async def ajudge(self, request):
        return self.judge(request)


@pytest.mark.parametrize("count", [1, 3])
def test_sharing_saves_the_judges_prefill_where_the_family_allows_it(vlm, count, monkeypatch):
    rows = []
    prefill = vlm.prefill
    monkeypatch.setattr(
        type(vlm), "prefill", lambda self, p, s: rows.append(len(p.ids)) or prefill(p, s)
    )
    judge = LabelLogitsJudge(vlm, min_label_mass=0)
    answers(pipeline(vlm, judge=judge), *turns()[:count])
    shares = vlm.family.shares_image_prefix and (count == 1 or vlm.family.ragged_extend)
    assert len(rows) == (1 if shares else 2)
    assert rows[0] == (2 * count if shares else count)


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
