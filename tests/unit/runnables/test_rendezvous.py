import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from safecode_guard.runnables.rendezvous import Rendezvous


def run_all(group, run):
    try:
        group.settle(run(group.items))
    except Exception as error:
        group.fail(error)


def doubled(items):
    return [item * 2 for item in items]


def call(group, item, run=doubled):
    future, last = group.submit(item)
    if last:
        run_all(group, run)
    return future.result(timeout=5)


def test_items_run_together_and_come_back_in_order():
    batches = []

    def run(items):
        batches.append(list(items))
        return doubled(items)

    group = Rendezvous(4)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: call(group, i, run), range(4)))
    assert results == [0, 2, 4, 6]
    assert len(batches) == 1
    assert sorted(batches[0]) == [0, 1, 2, 3]


def test_callers_that_leave_do_not_keep_the_others_waiting():
    group = Rendezvous(3)
    results = []
    thread = threading.Thread(target=lambda: results.append(call(group, 5)))
    thread.start()
    assert group.leave() is False or results == []
    if group.leave():
        run_all(group, doubled)
    thread.join(timeout=5)
    assert results == [10]


def test_all_leaving_runs_nothing():
    group = Rendezvous(2)
    assert [group.leave(), group.leave()] == [False, False]


def test_one_items_error_is_its_own():
    group = Rendezvous(2)
    first, _ = group.submit(-1)
    second, last = group.submit(3)
    assert last
    group.settle([ValueError("bad"), 3])
    assert second.result() == 3
    with pytest.raises(ValueError, match="bad"):
        first.result()


def test_a_broken_run_reaches_every_caller():
    group = Rendezvous(2)
    futures = [group.submit(i)[0] for i in range(2)]
    group.fail(KeyError("broken"))
    for future in futures:
        with pytest.raises(KeyError):
            future.result()


def test_a_caller_that_has_gone_does_not_cost_the_others_theirs():
    group = Rendezvous(2)
    gone, _ = group.submit(1)
    left, _ = group.submit(2)
    assert gone.cancel()
    group.settle([10, 20])
    assert left.result() == 20
