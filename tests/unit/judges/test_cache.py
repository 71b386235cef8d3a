from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from safecode_guard.judges.cache import JudgementCache
from safecode_guard.judges.protocol import JudgeRequest
from safecode_guard.verdict import Judgement


def judgement(**fields: object) -> Judgement:
    known = {"judge_id": "j", "prompt_version": "1", "p_unsafe": 0.5}
    return Judgement.model_validate({**known, **fields})


def test_copy_is_marked_cached_and_the_original_is_not() -> None:
    cache, original = JudgementCache(4), judgement(caption="c")
    cache.put("k", original)
    found = cache.get("k")
    assert found == original.model_copy(update={"cached": True})
    assert not original.cached
    assert cache.get("other") is None


def test_the_one_used_longest_ago_is_dropped() -> None:
    cache = JudgementCache(2)
    cache.put("a", judgement())
    cache.put("b", judgement())
    cache.get("a")
    cache.put("c", judgement())
    assert [key for key in "abc" if cache.get(key)] == ["a", "c"]
    assert len(cache) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"failed": "JudgeError: down", "p_unsafe": None, "parse_status": "not_run"},
        {"failed": "JudgeError: down"},
        {"failed": "unread", "parse_status": "malformed", "p_unsafe": None},
        {"label": "undecided", "parse_status": "malformed", "p_unsafe": None},
    ],
)
def test_failed_and_unread_answers_are_never_kept(fields: dict[str, object]) -> None:
    cache = JudgementCache(2)
    cache.put("k", judgement(**fields))
    assert cache.get("k") is None


def test_size_zero_keeps_nothing_and_a_negative_one_is_refused() -> None:
    cache = JudgementCache(0)
    cache.put("k", judgement())
    assert cache.get("k") is None
    with pytest.raises(ValueError, match="negative"):
        JudgementCache(-1)


def test_threads_do_not_corrupt_it() -> None:
    cache = JudgementCache(16)

    def work(offset: int) -> None:
        for i in range(500):
            cache.put(str((i + offset) % 40), judgement())
            cache.get(str(i % 40))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 16
    cache.clear()
    assert len(cache) == 0


def test_cached_lookup_takes_at_most_a_fifth_of_a_millisecond(
    request_for: Callable[..., JudgeRequest],
) -> None:
    cache, request = JudgementCache(1024), request_for()
    for i in range(1024):
        cache.put(str(i), judgement())
    cache.put(request.key("j", "1"), judgement())

    def lookup() -> float:
        started = time.perf_counter()
        assert cache.get(request.key("j", "1"))
        return time.perf_counter() - started

    times = sorted(lookup() for _ in range(300))
    assert times[len(times) // 4] <= 0.2e-3  # a quartile: other work may share the machine
