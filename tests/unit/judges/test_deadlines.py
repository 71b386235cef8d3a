from __future__ import annotations

import threading
import time

import pytest

from safecode_guard.errors import JudgeTimeout
from safecode_guard.judges.deadlines import Strays, call_before, earliest, has_time, remaining


def soon(seconds: float = 0.02) -> float:
    return time.monotonic() + seconds


def test_the_earlier_limit_counts() -> None:
    now = time.monotonic()
    assert earliest(None, None) is None
    assert earliest(now, None) == now
    assert earliest(now + 5, 100) == now + 5
    assert now < (earliest(now + 500, 1) or 0) < now + 2
    assert now < (earliest(None, 1) or 0) < now + 2


def test_a_deadline_that_passed_is_an_error() -> None:
    assert remaining(None) is None
    assert 0 < (remaining(soon(5)) or 0) <= 5
    assert has_time(None)
    assert has_time(soon(5))
    assert not has_time(soon(-1))
    with pytest.raises(JudgeTimeout, match="had passed"):
        remaining(soon(-1))


def test_result_and_error_of_a_call_are_the_callers() -> None:
    assert call_before(soon(5), lambda: 3) == 3

    def fail() -> int:
        raise KeyError("x")

    with pytest.raises(KeyError):
        call_before(soon(5), fail)


def test_only_calls_that_still_run_are_strays() -> None:
    strays, release = Strays(1), threading.Event()

    def hang() -> bool:
        return release.wait(5)

    assert call_before(soon(5), lambda: 1, strays=strays) == 1
    with pytest.raises(JudgeTimeout, match="did not answer"):
        call_before(soon(), hang, strays=strays)
    with pytest.raises(JudgeTimeout, match="1 earlier calls of the judge still hang"):
        call_before(soon(5), lambda: 1, strays=strays)
    release.set()
    while any(thread.name == "safecode-judge" for thread in threading.enumerate()):
        time.sleep(0.01)
    assert call_before(soon(5), lambda: 2, strays=strays) == 2


def test_without_a_deadline_a_call_is_made_however_many_hang() -> None:
    assert call_before(None, lambda: 1, strays=Strays(0)) == 1
