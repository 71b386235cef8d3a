from __future__ import annotations

from dataclasses import replace

import pytest

from safecode_guard.steering.pairs.acceptance import Certified, Sealed, Unproven, accept
from tests.unit.steering.pairs.test_spec import SPEC

HALT, SEAL, EOS = SPEC.halt, SPEC.seal, SPEC.eos[0]
GUIDED = [10, 11, 12, 13, 14]


@pytest.mark.parametrize(
    ("main", "twin", "proof"),
    [
        ([*GUIDED, 20], [*GUIDED, SEAL], Sealed((*GUIDED, 20), 5)),
        ([10, EOS], [10, EOS, SEAL], Sealed((10, EOS), 2)),
        ([10, 11, HALT], [10, 11, HALT], Certified((10, 11))),
        ([HALT], [HALT], Certified(())),
        ([10, 99, HALT], [10, 11, HALT], Certified((10,))),
        ([*GUIDED[:4], HALT], [*GUIDED, SEAL], Certified(tuple(GUIDED[:4]))),
        ([*GUIDED, 20, HALT], [*GUIDED, SEAL], Certified(tuple(GUIDED))),
        ([*GUIDED, 20], [*GUIDED, 20], Unproven()),
        ([*GUIDED, 20], GUIDED, Unproven()),
        ([*GUIDED, 20], [], Unproven()),
        (GUIDED, [SEAL], Unproven()),
        ([10, 11, 20], [10, 11, SEAL], Unproven()),  # before all steps were guided
        (GUIDED, [10, HALT, 12, SEAL], Unproven()),
        (list(range(10, 50)), [*range(10, 50), SEAL], Unproven()),
    ],
)
def test_what_two_answers_prove(main: list[int], twin: list[int], proof: object) -> None:
    assert accept(SPEC, main, twin) == proof


def test_a_pair_that_only_goes_on_may_be_sealed_after_one_token() -> None:
    assert accept(replace(SPEC, steps=0), [10, 20], [10, SEAL]) == Sealed((10, 20), 1)
