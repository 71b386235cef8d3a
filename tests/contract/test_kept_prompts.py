"""Prompts kept from turn to turn, on every family: no token differs, and memory is bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.errors import UnsupportedGeneration
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.models.protocol import Job, Needs, Sampling
from safecode_guard.pipeline.factory import make_examiner, make_turns
from safecode_guard.pipeline.guarded import GuardedTurns
from safecode_guard.pipeline.requests import TurnRequest, TurnResult
from safecode_guard.policy import Policy
from safecode_guard.testing import ScriptedJudge
from safecode_guard.turns.turn import TextPart, Turn, TurnMessage
from tests import families
from tests.families import ask, picture
from tests.threads import at_once

GREEDY = Sampling(do_sample=False, max_tokens=8)
PLENTY = 10**9


@pytest.fixture(params=families.NAMES)
def vlm(
    request: pytest.FixtureRequest, build: Callable[[str], TransformersModel]
) -> TransformersModel:
    return build(request.param)


@pytest.fixture
def llava(build: Callable[[str], TransformersModel]) -> TransformersModel:
    return build("llava")


def test_the_families_that_keep_none_are_declared(build):
    without = {name for name in families.NAMES if not build(name).family.keeps_prompts}
    assert without == {"gemma3", "instructblip", "mllama", "paligemma", "qwen3_5"}


def conversation(vlm: TransformersModel, seed: int, count: int = 3) -> list[Turn]:
    """A conversation about one picture, up to each of its turns."""
    turn = ask("What about the second one? describe the scene", picture(seed))
    if vlm.family.layout == "plain":  # single questions: others about the same picture
        images = turn.images
        asked = ("describe the scene", "describe the wall", "describe the scene, safe or unsafe")
        return [replace(ask(text, picture(seed)), images=images) for text in asked[:count]]
    turns = [turn]
    for i in range(count - 1):
        said = TurnMessage("assistant", (TextPart("The image shows a kitchen."),))
        more = TurnMessage("user", (TextPart(f"How do I sharpen this? {'safely ' * i}"),))
        turns.append(replace(turn, messages=(*turns[-1].messages, said, more)))
    return turns


def served(
    vlm: TransformersModel, kept: int, *, own: bool = True, p: float = 0.9, **decoding: float
) -> GuardedTurns:
    policy = Policy.load(
        {
            "judge": {"kind": "same_model", "cache_size": 0, "min_label_mass": 0},
            "decoding": {"alpha": 0.5, "sigma": 1.0, "lambda_boost": 3.0, **decoding},
            "actions": {"safe": "guide", "unsafe": "guide", "undecided": "guide"},
            "prefix_cache_bytes": kept,
        }
    )
    judge = LabelLogitsJudge(vlm, min_label_mass=0) if own else ScriptedJudge(p)
    return make_turns(vlm, make_examiner(policy, judge=judge))


def answers(
    turns: GuardedTurns,
    asked: Sequence[Turn],
    sampling: Sampling = GREEDY,
    scope: str | None = None,
) -> list[TurnResult]:
    found = turns.run([TurnRequest(turn, sampling, cache_scope=scope) for turn in asked])
    for result in found:
        assert isinstance(result, TurnResult), result
    return found


def same(left: Sequence[TurnResult], right: Sequence[TurnResult]) -> None:
    assert [r.tokens for r in left] == [r.tokens for r in right]
    for mine, other in zip(left, right, strict=True):
        judged, wanted = mine.verdicts[0].p_unsafe, other.verdicts[0].p_unsafe
        assert judged == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("own", [True, False], ids=["own judge", "other judge"])
def test_a_conversation_is_answered_as_if_nothing_were_kept(vlm, own):
    turns = conversation(vlm, 1)
    without = [answers(served(vlm, 0, own=own), [turn])[0] for turn in turns]
    assert vlm.kept.statistics().entries == 0
    before = vlm.kept.statistics()
    keeping = served(vlm, PLENTY, own=own)
    same([answers(keeping, [turn])[0] for turn in turns], without)
    found = vlm.kept.statistics()
    if not vlm.family.keeps_prompts:
        assert found == before, "declared: such a family keeps nothing"
        return
    assert found.hits - before.hits >= 2 * (len(turns) - 1), "both views of every later turn"
    assert found.reused_tokens > before.reused_tokens


def test_batches_are_continued_whether_all_of_their_rows_are_kept_or_some(vlm):
    turns = [conversation(vlm, 1)[1], conversation(vlm, 2)[2], conversation(vlm, 3)[0]]
    without = answers(served(vlm, 0), turns)
    keeping = served(vlm, PLENTY)
    answers(keeping, [conversation(vlm, 1)[0]])
    answers(keeping, [conversation(vlm, 2)[1]])
    same(answers(keeping, turns), without)
    same(answers(keeping, turns), without)
    same(answers(keeping, turns[::-1]), without[::-1])


def test_rows_cut_back_equal_shorter_prompts_or_are_refused(vlm):
    if not vlm.family.keeps_prompts:
        pytest.skip("the family keeps no prompts")
    turns = [ask("How do I sharpen this?", picture(4)), ask("Hello! safe or unsafe", picture(5))]
    prompts = vlm.encode(turns)
    tails = (3, 1)
    lengths = [len(ids) - tail for ids, tail in zip(prompts.ids, tails, strict=True)]
    branch = vlm.prefill(prompts, GREEDY).fork()
    branch.crop(lengths, width=max(lengths) + 2)
    branch.extend([ids[n:] for ids, n in zip(prompts.ids, lengths, strict=True)])
    whole = vlm.prefill(prompts, GREEDY)
    torch.testing.assert_close(branch.logits, whole.logits, atol=1e-4, rtol=1e-4)
    assert branch.ids == prompts.ids
    for _ in range(2):
        tokens = whole.logits.argmax(-1)
        torch.testing.assert_close(branch.step(tokens), whole.step(tokens), atol=1e-4, rtol=1e-4)


def test_caches_that_do_not_keep_each_token_are_not_cut(build):
    for name in ("gemma3", "qwen3_5"):
        branch = build(name).prefill(build(name).encode([ask("Hello!", picture())]), GREEDY)
        with pytest.raises(UnsupportedGeneration, match="cannot be cut back"):
            branch.crop([len(branch.ids[0]) - 1])


def test_other_sampling_goes_on_from_the_same_prompt(vlm):
    turn = conversation(vlm, 6)[0]
    drawn = Sampling(temperature=0.7, do_sample=True, seed=3, max_tokens=8, repetition_penalty=1.3)
    without = answers(served(vlm, 0), [turn], drawn)
    keeping = served(vlm, PLENTY)
    answers(keeping, [turn])
    same(answers(keeping, [turn], drawn), without)


def test_states_are_read_behind_a_kept_prompt(vlm):
    def states(limit: int) -> torch.Tensor:
        turn = conversation(vlm, 7)[0]
        with closing(vlm.open([turn], GREEDY)) as session:
            session.keep([None], limit=limit)
            job = Job(0, turn, GREEDY, needs=Needs(hidden_layer=-1))
            found = [delta.hidden for delta in session.answer([job]) if delta.finish]
        assert found[0] is not None
        return found[0]

    expected = states(0)
    for _ in range(2):
        torch.testing.assert_close(states(PLENTY), expected, atol=1e-4, rtol=1e-4)


def test_another_picture_seed_or_noise_is_not_the_same_prompt(llava):
    keeping = served(llava, PLENTY)
    first = ask("describe the scene", picture(1))
    answers(keeping, [first])
    for asked, turns in (
        (ask("describe the scene", picture(2)), keeping),
        (first, served(llava, PLENTY, sigma=0.5)),
    ):
        same(answers(turns, [asked]), answers(served(llava, 0, sigma=_sigma(turns)), [asked]))
    seeded = replace(GREEDY, seed=9)
    same(answers(keeping, [first], seeded), answers(served(llava, 0), [first], seeded))
    assert llava.kept.statistics().entries == 1 + 1 + 2 + 1 + 1  # clean, its seconds, the other


def _sigma(turns: GuardedTurns) -> float:
    return float(turns.examiner.policy.decoding.sigma or 0)


def test_a_scope_shares_with_nobody(llava):
    turn, keeping = ask("describe the scene", picture(1)), served(llava, PLENTY)

    def hits(scope: str | None) -> int:
        before = llava.kept.statistics().hits
        answers(keeping, [turn], scope=scope)
        return llava.kept.statistics().hits - before

    assert [hits(None), hits("ann"), hits("bob")] == [0, 0, 0]
    assert [hits(None), hits("ann"), hits("bob")] == [2, 2, 2]


def test_what_is_kept_never_exceeds_its_bound(llava):
    one = answers_bytes(llava)
    limit = int(2.5 * one)
    keeping = served(llava, limit)
    for seed in range(5):
        answers(keeping, [ask("describe the scene", picture(seed))])
        found = llava.kept.statistics()
        assert 0 < found.bytes <= limit
        assert found.bytes == sum(e.branch.nbytes for e in llava.kept._entries.values())
    assert found.entries == 2
    assert found.evicted > 0
    llava.kept.clear()
    answers(served(llava, one // 2), [ask("describe the scene", picture(1))])
    assert llava.kept.statistics().entries == 0


def answers_bytes(vlm: TransformersModel) -> int:
    """Return the bytes of one kept prompt."""
    answers(served(vlm, PLENTY, own=False, alpha=0.0), [ask("describe the scene", picture(0))])
    found = vlm.kept.statistics()
    vlm.kept.clear()
    assert found.entries == 1
    return found.bytes


def test_threads_continue_each_others_prompts(llava):
    turns = conversation(llava, 1, 4) + conversation(llava, 2, 4)
    expected = [answers(served(llava, 0), [turn])[0].tokens for turn in turns]
    keeping = served(llava, int(4.5 * answers_bytes(llava)))
    wrong: list[object] = []

    def work(own: int) -> None:
        for i in range(own, own + 2 * len(turns)):
            place = (i * (own + 1)) % len(turns)
            try:
                found = answers(keeping, [turns[place]])[0].tokens
                if found != expected[place]:
                    wrong.append((place, found))
            except Exception as error:
                wrong.append(error)

    at_once(work)
    assert wrong == []
