"""Whatever an engine does to a pair: what is sealed is right, and nothing wrong is released."""

from __future__ import annotations

import os
import random

import pytest
from engine import HALT, LENGTH, SEAL, Engine, continued, in_process, spec
from hypothesis import given, settings
from hypothesis import strategies as st

from safecode_guard.steering.pairs.acceptance import Certified, Sealed, accept

SOAK = pytest.mark.skipif(not os.environ.get("SOAK"), reason="long; set SOAK=1")


def run(seed: int, *, calm: bool) -> object:
    """Run one random schedule, check what is released, return what was proven."""
    rng = random.Random(seed)
    main = spec(rng)
    engine = Engine(rng, main, calm=calm)
    engine.run()
    guided, whole = in_process(main, engine.seed)
    proof = accept(main, engine.main.answer, engine.twin.answer)
    if isinstance(proof, Sealed):
        assert whole
        assert list(proof.tokens[: proof.guided]) == guided[: len(proof.tokens)]
        right = continued(engine.seed, guided, LENGTH)
        assert list(proof.tokens) == right[: len(proof.tokens)]
    if isinstance(proof, Certified):
        assert list(proof.tokens) == guided[: len(proof.tokens)]
    assert {HALT, SEAL}.isdisjoint(getattr(proof, "tokens", ()))
    return proof


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**40))
def test_nothing_wrong_is_released(seed: int) -> None:
    run(seed, calm=False)


@SOAK
@pytest.mark.soak
@settings(max_examples=20_000, deadline=None)
@given(st.integers(0, 2**40))
def test_nothing_wrong_is_released_in_many_schedules(seed: int) -> None:
    run(seed, calm=False)


def test_a_pair_in_step_is_sealed_unless_it_goes_beyond_its_cover() -> None:
    proofs = 0
    for seed in range(60):
        proof, rng = run(seed, calm=True), random.Random(seed)
        main = spec(rng)
        _, whole = in_process(main, Engine(rng, main, calm=True).seed)
        assert isinstance(proof, Sealed) == whole
        proofs += whole
    assert proofs > 20


def test_disturbed_pairs_are_sealed_halted_and_unproven() -> None:
    kinds = {type(run(seed, calm=False)).__name__ for seed in range(200)}
    assert kinds == {"Sealed", "Certified", "Unproven"}
