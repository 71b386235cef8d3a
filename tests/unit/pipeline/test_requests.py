import pytest

from safecode_guard.pipeline.requests import Piece, Run, TurnResult, collected
from safecode_guard.verdict import PolicyRef, Verdict
from tests.unit.pipeline.serving import request, turn

VERDICT = Verdict(label="safe", action="pass", policy=PolicyRef(name="t", digest="0"))
RESULT = TurnResult("Run.", "stop")


def test_each_turn_ends_with_its_result_or_its_error():
    error = KeyError("broken")
    events = [(1, VERDICT), (0, VERDICT), (1, error), (0, Piece("Run.")), (0, RESULT)]
    assert collected(iter(events), 2) == [RESULT, error]


def test_a_turn_without_an_end_is_a_mistake_of_ours():
    with pytest.raises(KeyError):
        collected([(0, VERDICT)], 1)


@pytest.mark.parametrize(
    ("finish", "withheld"), [("stop", False), ("length", False), ("content_filter", True)]
)
def test_a_result_says_whether_the_guard_answered(finish, withheld):
    assert TurnResult("x", finish).withheld is withheld


def test_a_run_that_nobody_listens_to_is_told_all_the_same():
    Run().tell(VERDICT)
    assert Run().id is None


def test_each_request_is_cancelled_by_itself():
    asked = turn()
    one, other = request(asked), request(asked)
    one.cancelled.set()
    assert not other.cancelled.is_set()
    assert one == other
