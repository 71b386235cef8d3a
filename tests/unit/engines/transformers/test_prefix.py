from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.engines.transformers.prefix import covers_images, shared_length

IMAGE = 9


@dataclass
class Rows:
    ids: list[list[int]]
    image_ids: frozenset[int] = frozenset({IMAGE})

    def cut(self, lengths: Sequence[int], *, width: int | None = None) -> Rows:
        return Rows([row[:n] for row, n in zip(self.ids, lengths, strict=True)])


def test_prefix_ends_where_prompts_part() -> None:
    assert shared_length([1, 2, 3, 4], [1, 2, 5]) == 2
    assert shared_length([1], [2]) == 0


def test_each_side_keeps_a_token() -> None:
    assert shared_length([1, 2, 3], [1, 2, 3]) == 2
    assert shared_length([1, 2], [1, 2, 3]) == 1
    assert shared_length([], [1]) == 0


@given(st.lists(st.integers(0, 3), min_size=1), st.lists(st.integers(0, 3), min_size=1))
def test_prefix_is_the_longest_that_leaves_a_token(left: list[int], right: list[int]) -> None:
    n = shared_length(left, right)
    limit = min(len(left), len(right)) - 1
    assert left[:n] == right[:n]
    assert n <= limit
    assert n == limit or left[n] != right[n]


def test_images_are_covered_if_none_is_left_behind() -> None:
    rows = Rows([[1, IMAGE, IMAGE, 2, 3], [4, 5]])
    assert covers_images(rows, [3, 0])
    assert not covers_images(rows, [2, 0])
