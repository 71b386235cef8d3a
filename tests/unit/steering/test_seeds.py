from __future__ import annotations

from safecode_guard.steering.seeds import derive_seed, generator


def test_a_seed_is_the_same_everywhere_and_differs_by_purpose():
    assert derive_seed(0, "image", 0) == 2195272132829025409
    seeds = {derive_seed(s, p, i) for s in range(5) for p in ("image", "token") for i in range(20)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_generator_starts_anew_each_time():
    assert generator(3, "token", 1).initial_seed() == generator(3, "token", 1).initial_seed()
