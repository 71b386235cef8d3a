import threading
import time

import pytest

from safecode_guard.errors import Overloaded, TurnTimeout
from safecode_guard.pipeline.admission import Turnstile


def test_places_are_given_back_even_after_an_error():
    turnstile = Turnstile(active=1, waiting=0)
    for _ in range(3):
        with pytest.raises(KeyError), turnstile.enter():
            raise KeyError
    with turnstile.enter():
        pass


def test_too_many_waiting_is_refused_at_once():
    turnstile = Turnstile(active=1, waiting=0)
    with turnstile.enter(), pytest.raises(Overloaded), turnstile.enter():
        pytest.fail("entered")


def test_waiting_ends_at_the_deadline():
    turnstile = Turnstile(active=1, waiting=1)
    started = time.monotonic()
    with (
        turnstile.enter(),
        pytest.raises(TurnTimeout),
        turnstile.enter(deadline=started + 0.05),
    ):
        pytest.fail("entered")
    assert 0.04 < time.monotonic() - started < 2


def test_a_waiting_turn_enters_when_a_place_is_free():
    turnstile, entered = Turnstile(active=1, waiting=1), threading.Event()

    def wait():
        with turnstile.enter():
            entered.set()

    with turnstile.enter():
        thread = threading.Thread(target=wait)
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(2)
    thread.join()
