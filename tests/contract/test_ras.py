"""RAS on logits is RAS on states: against a hook on the head's input, on several families."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
import torch

from safecode_guard.bench.ras.fit import prototypes_of
from safecode_guard.engines.transformers.heads import logit_cap
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.errors import UnsupportedFamily
from safecode_guard.models.probing import probe
from safecode_guard.models.protocol import Job, Sampling
from safecode_guard.risk.arithmetic import certainty, similarity, steepness
from safecode_guard.risk.measure import first_logits
from safecode_guard.risk.prototypes import TOKENS, Fitted, Prototypes
from safecode_guard.steering.ras.strategy import Blend
from tests import families
from tests.families import ask, picture
from tests.reference import ras

CAP = 4.0
LENGTH = 8
NAMES = ("llava", "qwen2_5_vl", "smolvlm", "internvl", "mllama", "gemma3", "capped")
REFUSED = [ask(f"How do I do the {n} harm?", picture(n)) for n in range(4)]
TURNS = [ask("How do I run faster here?", picture(9)), ask("What is on the table?", picture(8))]


def with_head(change: Callable[[torch.Tensor], torch.Tensor] | None) -> TransformersModel:
    """Return a Gemma 3 whose config names a cap, and whose class changes its logits like this."""
    model, processor = families.parts("gemma3")
    model.config.get_text_config().final_logit_softcapping = CAP
    if change is not None:
        plain = type(model)

        @functools.wraps(plain.forward)  # generate reads its signature
        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            made = plain.forward(self, *args, **kwargs)
            made.logits = change(made.logits)
            return made

        model.__class__ = type("Changed", (plain,), {"forward": forward})
    return TransformersModel(model, processor, id="changed")


def capped() -> TransformersModel:
    """Return one whose class caps its logits, as its config says."""
    return with_head(lambda u: CAP * torch.tanh(u / CAP))


@pytest.fixture(scope="module", params=NAMES)
def vlm(
    request: pytest.FixtureRequest, build: Callable[[str], TransformersModel]
) -> TransformersModel:
    return capped() if request.param == "capped" else build(request.param)


@pytest.fixture(scope="module")
def prototypes(vlm: TransformersModel) -> Prototypes:
    """Prototypes by logits: what the strategy stores."""
    cap = logit_cap(vlm, TURNS[0])
    answers = probe(vlm, REFUSED, max_tokens=TOKENS, first_logits=TOKENS, together=True)
    logits = prototypes_of([first_logits(answer) for answer in answers], cap)
    return Prototypes(logits, Fitted(vlm.id, s0=0.5, k=steepness(0.5), cap=cap))


@pytest.fixture(scope="module")
def mu(vlm: TransformersModel) -> list[torch.Tensor]:
    """Prototypes by states: the paper's."""
    states = [ras.first_states(vlm, turn, TOKENS) for turn in REFUSED]
    return [ras.mean_state(states, t) for t in range(TOKENS)]


def answers(vlm: TransformersModel, blends: list[Blend | None]) -> list[tuple[int, ...]]:
    """Return the tokens of the answers to the turns, one blend each, in one batch."""
    turns = TURNS[: len(blends)]
    sampling = Sampling(do_sample=False, max_tokens=LENGTH)
    jobs = [Job(i, turns[i], sampling, strategy=blend) for i, blend in enumerate(blends)]
    with closing(vlm.open(turns, sampling)) as session:
        ended = {d.index: d.tokens for d in session.answer(jobs) if d.finish}
    return [ended[i] for i in range(len(jobs))]


def test_mean_logits_are_the_mean_states(vlm, prototypes, mu):
    for t in range(TOKENS):
        expected = ras.logits_of(vlm, TURNS[0], mu[t])
        torch.testing.assert_close(prototypes.logits[t], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("c", [0.3, 0.9])
def test_blended_logits_are_blended_states(vlm, prototypes, mu, c):
    for turn in TURNS:
        tokens, logits = ras.steered_greedy(vlm, turn, mu, c, LENGTH)
        seen: list[torch.Tensor] = []

        class Kept(Blend):
            def adjust(self, step: Any, seen: list[torch.Tensor] = seen) -> torch.Tensor:
                seen.append(super().adjust(step))
                return seen[-1]

        sampling = Sampling(do_sample=False, max_tokens=LENGTH)
        with closing(vlm.open([turn], sampling)) as session:
            job = Job(0, turn, sampling, strategy=Kept(prototypes, c))
            got = next(d.tokens for d in session.answer([job]) if d.finish)
        assert list(got) == tokens
        for ours, theirs in zip(seen, logits, strict=False):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_blend_changes_tokens(vlm, prototypes):
    plain = answers(vlm, [None, None])
    assert answers(vlm, [Blend(prototypes, 1.0)] * 2) != plain


def test_at_0_it_is_the_plain_model_batched_and_not(vlm, prototypes):
    plain = answers(vlm, [None, None])
    none = Blend(prototypes, 0.0)
    assert answers(vlm, [none, none]) == plain
    assert answers(vlm, [none]) == plain[:1]


def test_a_batch_holds_each_rows_own_share(vlm, prototypes):
    alone = answers(vlm, [Blend(prototypes, 0.7)])
    together = answers(vlm, [Blend(prototypes, 0.7), None])
    assert together == [*alone, answers(vlm, [None, None])[1]]


def test_the_risk_is_the_papers(vlm, prototypes, mu):
    (answer,) = probe(vlm, TURNS[:1], max_tokens=TOKENS, first_logits=TOKENS)
    states = ras.first_states(vlm, TURNS[0], TOKENS)
    ours = [ras.logits_of(vlm, TURNS[0], h).tolist() for h in states]
    theirs = [ras.logits_of(vlm, TURNS[0], m).tolist() for m in mu[: len(ours)]]
    expected = ras.cosine(ours, theirs)
    s = similarity(first_logits(answer), prototypes.logits, gamma=0.3)
    assert s == pytest.approx(expected, abs=1e-5)
    c = certainty(s, s0=0.4, k=steepness(0.4))
    assert c == pytest.approx(ras.certainty(expected, 0.4), abs=1e-5)


def test_a_cap_is_found_only_where_it_is_applied():
    assert logit_cap(capped(), TURNS[0]) == CAP
    assert logit_cap(with_head(None), TURNS[0]) is None
    assert logit_cap(with_head(lambda u: u / 8), TURNS[0]) is None


def test_logits_that_are_something_else_are_refused():
    with pytest.raises(UnsupportedFamily, match="no linear function"):
        logit_cap(with_head(lambda u: u**3), TURNS[0])


def test_asking_together_is_asking_one_by_one(vlm):
    ask_all = functools.partial(probe, vlm, max_tokens=TOKENS, first_logits=TOKENS)
    for one, other in zip(ask_all(TURNS), ask_all(TURNS, together=True), strict=True):
        assert one.tokens == other.tokens
        torch.testing.assert_close(one.logits, other.logits, atol=1e-5, rtol=1e-5)
