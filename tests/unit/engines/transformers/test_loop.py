import pytest
import torch

from safecode_guard.engines.transformers.loop import Row, decode
from safecode_guard.errors import ModelError
from safecode_guard.models.protocol import Sampling
from safecode_guard.testing import ScriptedVLM
from safecode_guard.turns.turn import TextPart, Turn, TurnMessage


def turn(text: str) -> Turn:
    return Turn((TurnMessage("user", (TextPart(text),)),))


def branch_of(vlm: ScriptedVLM, *texts: str):
    return vlm.prefill(vlm.encode([turn(text) for text in texts]), Sampling())


class Recording:
    """A strategy that leaves logits alone and records what it is given."""

    def __init__(self, steps: int = 2, views: int = 2) -> None:
        self.steps, self.max_tokens = steps, None
        self.second = turn("second") if views == 2 else None
        self.seen: list[tuple[int, tuple[int, ...], list[int]]] = []

    def done(self, so_far):
        return len(so_far) >= self.steps

    def adjust(self, step):
        self.seen.append((step.index, tuple(step.logits.shape), step.so_far.tolist()))
        return step.logits[0]


def row(vlm, **options) -> Row:
    return Row(max_tokens=options.pop("max_tokens", 50), eos_ids=vlm.vocabulary.eos_ids, **options)


def text_of(vlm, row: Row) -> str:
    return vlm.vocabulary.decode(row.tokens)


def drain(branch, rows):
    return list(decode(branch, rows))


def test_rows_decode_to_their_own_ends():
    vlm = ScriptedVLM(lambda scene: "Yes, of course." if "long" in scene.prompt else "No.")
    branch = branch_of(vlm, "long", "short")
    rows = [row(vlm), row(vlm)]
    drain(branch, rows)
    assert [text_of(vlm, r) for r in rows] == ["Yes, of course.", "No."]
    assert [r.finish for r in rows] == ["stop", "stop"]


def test_finished_rows_leave_the_batch():
    vlm = ScriptedVLM(lambda scene: "Yes, of course." if "long" in scene.prompt else "No.")
    branch = branch_of(vlm, "short", "long")
    rows = [row(vlm), row(vlm)]
    drain(branch, rows)
    assert branch.rows == 1
    assert text_of(vlm, rows[1]) == "Yes, of course."


def test_second_views_are_dropped_after_the_guided_steps():
    vlm = ScriptedVLM("Yes, of course.")
    branch = branch_of(vlm, "a", "b", "a", "b")  # clean, clean, second, second
    strategies = [Recording(2), Recording(3)]
    rows = [row(vlm, strategy=s) for s in strategies]
    widths = [branch.rows for _ in decode(branch, rows)]
    assert widths[:5] == [4, 4, 3, 2, 2]
    assert [s for s, _, _ in strategies[0].seen] == [0, 1]
    assert [shape[0] for _, shape, _ in strategies[1].seen] == [2, 2, 2]
    assert strategies[1].seen[2][2] == rows[1].tokens[:2]


def test_only_rows_that_contrast_have_a_second_view():
    vlm = ScriptedVLM("Yes.")
    branch = branch_of(vlm, "plain", "guided", "guided")
    guided = Recording(2)
    rows = [row(vlm), row(vlm, strategy=guided)]
    drain(branch, rows)
    assert guided.seen[0][1][0] == 2
    assert text_of(vlm, rows[0]) == text_of(vlm, rows[1]) == "Yes."


def test_one_view_strategies_need_no_second_row():
    vlm = ScriptedVLM("Yes.")
    guided = Recording(2, views=1)
    rows = [row(vlm, strategy=guided)]
    drain(branch_of(vlm, "a"), rows)
    assert guided.seen[0][1][0] == 1


def test_length_is_capped_and_named():
    vlm = ScriptedVLM("Yes, of course.")
    rows = [row(vlm, max_tokens=3)]
    drain(branch_of(vlm, "a"), rows)
    assert text_of(vlm, rows[0]) == "Yes"
    assert rows[0].finish == "length"


def test_a_row_can_be_finished_from_outside():
    vlm = ScriptedVLM("Yes, of course.")
    rows = [row(vlm)]
    for step, _ in enumerate(decode(branch_of(vlm, "a"), rows)):
        if step == 1:
            rows[0].finish = "stop"
    assert len(rows[0].tokens) == 2


class Forbids(Recording):
    def adjust(self, step):
        return torch.full_like(step.logits[0], -torch.inf)


class Raises(Recording):
    def adjust(self, step):
        raise KeyError("own")


class Misshapen(Recording):
    def adjust(self, step):
        return step.logits


@pytest.mark.parametrize(
    ("strategy", "error"), [(Forbids, ModelError), (Raises, KeyError), (Misshapen, ModelError)]
)
def test_what_fails_ends_its_own_row_and_no_other(strategy, error):
    vlm = ScriptedVLM("Yes.")
    rows = [row(vlm), row(vlm, strategy=strategy(views=1)), row(vlm, strategy=Recording(views=1))]
    drain(branch_of(vlm, "a", "b", "c"), rows)
    assert isinstance(rows[1].error, error)
    assert rows[1].finish is None
    assert [text_of(vlm, rows[0]), text_of(vlm, rows[2])] == ["Yes.", "Yes."]


def test_steering_ends_where_the_strategy_says_so():
    class Early(Recording):
        def done(self, so_far):
            return len(so_far) >= 1

    guided = Early(5, views=1)
    vlm = ScriptedVLM("Yes.")
    drain(branch_of(vlm, "a"), [row(vlm, strategy=guided)])
    assert [index for index, _, _ in guided.seen] == [0]


class Only:
    """A grammar of one text."""

    def __init__(self, vlm, text: str) -> None:
        self.size, self.left = vlm.vocabulary.size, vlm.vocabulary.encode(text)

    @property
    def finished(self) -> bool:
        return not self.left

    def mask(self):
        allowed = torch.zeros(self.size, dtype=torch.bool)
        allowed[self.left[0]] = True
        return allowed

    def accept(self, token: int) -> None:
        assert token == self.left.pop(0)


def test_a_constraint_is_followed_and_ends_the_row():
    vlm = ScriptedVLM("Yes, of course.")
    rows = [row(vlm, constraint=Only(vlm, "No!")), row(vlm)]
    drain(branch_of(vlm, "a", "b"), rows)
    assert text_of(vlm, rows[0]) == "No!"
    assert text_of(vlm, rows[1]) == "Yes, of course."


def test_draws_are_the_same_alone_and_in_a_batch():
    replies = {"Yes.": 0.0, "No.": 0.2, "Maybe so.": 0.1}

    def drawn(vlm, branch, seeds):
        rows = [row(vlm, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        drain(branch, rows)
        return [text_of(vlm, r) for r in rows]

    vlm = ScriptedVLM(replies)
    seeds = list(range(8))
    together = drawn(vlm, branch_of(vlm, *["a"] * 8), seeds)
    alone = [drawn(vlm, branch_of(vlm, "a"), [seed])[0] for seed in seeds]
    assert together == alone
    assert len(set(together)) > 1
