from __future__ import annotations

from safecode_guard.engines.transformers.kept import MOST, KeptPrompts, Sight
from safecode_guard.models.protocol import Sampling
from safecode_guard.testing import ScriptedVLM
from tests.families import ask, picture

SIGHT = Sight(None, "model")


def branch():
    vlm = ScriptedVLM()
    return vlm.prefill(vlm.encode([ask("Hello!")]), Sampling())


def put(kept: KeptPrompts, *ids: int, sight: Sight = SIGHT, nbytes: int = 10, limit: int = 100):
    kept.put(sight, ids, made := branch(), nbytes, limit=limit)
    return made


def test_the_longest_common_beginning_is_found():
    kept = KeptPrompts()
    put(kept, 1, 2, 3)
    longer = put(kept, 1, 2, 9, 9, 9)
    assert kept.find(SIGHT, [1, 2, 9, 9, 5, 6]) == (longer, 4)
    assert kept.find(SIGHT, [7, 1, 2]) is None


def test_one_token_is_left_to_compute():
    kept = KeptPrompts()
    made = put(kept, 1, 2, 3)
    assert kept.find(SIGHT, [1, 2, 3]) == (made, 2)
    assert kept.find(SIGHT, [1]) is None


def test_what_holds_less_than_the_pictures_is_of_no_use():
    kept = KeptPrompts()
    put(kept, 1, 2, 3)
    assert kept.find(SIGHT, [1, 2, 4, 5], least=3) is None
    found = kept.statistics()
    assert (found.hits, found.misses, found.reused_tokens) == (0, 1, 0)


def test_a_prompt_that_goes_on_with_another_replaces_it():
    kept = KeptPrompts()
    put(kept, 1, 2)
    longer = put(kept, 1, 2, 3)
    assert (kept.statistics().entries, kept.statistics().bytes) == (1, 10)
    assert kept.find(SIGHT, [1, 2, 9]) == (longer, 2)


def test_the_least_recently_used_is_dropped_first():
    kept = KeptPrompts()
    for first in (1, 2, 3):
        put(kept, first, 5, 6, limit=30)
    assert kept.find(SIGHT, [1, 5, 6, 7])
    put(kept, 4, 5, 6, limit=30)
    held = [first for first in (1, 2, 3, 4) if kept.find(SIGHT, [first, 5, 6, 7])]
    assert held == [1, 3, 4]
    assert (kept.statistics().evicted, kept.statistics().bytes) == (1, 30)


def test_what_is_too_large_is_not_kept_and_a_lower_bound_counts_at_once():
    kept = KeptPrompts()
    put(kept, 1, 2)
    put(kept, 3, 4)
    put(kept, 5, 6, nbytes=200)
    assert kept.statistics().entries == 2
    put(kept, 7, 8, limit=10)
    assert (kept.statistics().entries, kept.statistics().bytes) == (1, 10)


def test_nothing_is_left_after_clearing():
    kept = KeptPrompts()
    put(kept, 1, 2)
    kept.clear()
    assert kept.find(SIGHT, [1, 2, 3]) is None
    assert (kept.statistics().entries, kept.statistics().bytes) == (0, 0)


def test_scope_model_pictures_and_views_tell_prompts_apart():
    turn = ask("Hello!", picture(1))
    seen = turn.with_pixels([picture(2)], views=["noise 0.1 after_resize 0 0"])
    sights = {
        Sight.of(turn, "model", None),
        Sight.of(turn, "model", "ann"),
        Sight.of(turn, "other", None),
        Sight.of(ask("Hello!", picture(3)), "model", None),
        Sight.of(seen, "model", None),
        Sight.of(turn.with_pixels([picture(2)], views=["grey"]), "model", None),
    }
    assert len(sights) == 6
    assert Sight.of(ask("Bye!", picture(1)), "model", None) in sights, "words are its tokens"


def test_pictures_that_nothing_tells_apart_are_never_kept():
    assert Sight.of(ask("Hello!", picture(1)).with_pixels([picture(2)]), "model", None) is None


def test_there_are_never_more_than_can_be_compared():
    kept = KeptPrompts()
    for first in range(MOST + 5):
        put(kept, first, 5, 6, nbytes=1, limit=10**9)
    found = kept.statistics()
    assert (found.entries, found.evicted, found.bytes) == (MOST, 5, MOST)
    assert kept.find(SIGHT, [4, 5, 6, 7]) is None
    assert kept.find(SIGHT, [5, 5, 6, 7])
