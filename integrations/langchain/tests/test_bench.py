"""The benchmark of steps measures what it says, on a few of them."""

import json

import pytest
from safecode_guard_langchain import bench


def test_the_command_prints_what_it_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--steps", "24", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 24
    assert found["cached_check_ms"] > 0
    assert found["guard_ms"] > 0
    assert 0 < found["of_it_whole_ms"] < found["decoding_ms"]


def test_every_screenshot_is_another() -> None:
    assert len({bench.screenshot(number) for number in range(20)}) == 20
